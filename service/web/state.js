// What is shown, in the words of the API, kept in the address so that a link restores it.

const DEFAULTS = {
  section: "look",
  model: "",
  id: "",
  sample: "",
  layer: "",
  head: "mean",
  query: "cls",
  direction: "from",
  stage: "reattention",
  scale: "block",
  overlay: "65",
  view: "heads",
  variant: "column",
  threshold: "0.9",
  pair: "",
  other: "",
};

const ALLOWED = {
  section: /^(look|understand|compare)$/,
  id: /^[0-9a-f]{32}$/,
  layer: /^(\d{1,3}|rollout)$/,
  head: /^(mean|max|max_abs|rms|\d{1,3})$/,
  query: /^(cls|\d{1,3},\d{1,3})$/,
  direction: /^(from|to)$/,
  stage: /^(softmax|reattention)$/,
  scale: /^(map|block|all)$/,
  overlay: /^(\d{1,2}|100)$/,
  view: /^(heads|grid|raw|theta)$/,
  variant: /^(column|row|centred)$/,
  threshold: /^-?0?\.\d{1,3}$|^0$/,
  pair: /^\d{1,3},\d{1,3}$/,
};

export class State {
  #values = { ...DEFAULTS };
  #listeners = [];
  #writing = 0;

  constructor() {
    this.#read();
    addEventListener("hashchange", () => {
      if (this.hash === location.hash) return;
      this.#read();
      this.#tell(true);
    });
  }

  get values() {
    return this.#values;
  }

  /** The address of what is shown. */
  get hash() {
    const entries = Object.entries(this.#values).filter(([name, value]) => value !== DEFAULTS[name]);
    return entries.length ? `#${new URLSearchParams(entries)}`.replaceAll("%2C", ",") : "";
  }

  get link() {
    const address = new URL(location.href);
    address.hash = this.hash;
    return address.href;
  }

  set(changes) {
    const before = this.hash;
    for (const [name, value] of Object.entries(changes)) this.#values[name] = String(value);
    if (this.hash === before) return;
    // Browsers refuse to write many addresses at once, as a dragged slider would.
    clearTimeout(this.#writing);
    this.#writing = setTimeout(
      () => history.replaceState(null, "", this.hash || location.pathname + location.search),
      100,
    );
    this.#tell(false);
  }

  /** `listener(navigated)`: whether the address was changed from outside. */
  listen(listener) {
    this.#listeners.push(listener);
  }

  #tell(navigated) {
    for (const listener of this.#listeners) listener(navigated);
  }

  #read() {
    this.#values = { ...DEFAULTS };
    for (const [name, value] of new URLSearchParams(location.hash.slice(1)))
      if (name in DEFAULTS && (ALLOWED[name] ?? /^[\w.-]{0,200}$/).test(value)) this.#values[name] = value;
  }
}
