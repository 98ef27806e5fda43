// What is shown, in the API's terms, kept in the URL's fragment so that a link restores it.

const DEFAULTS = {
  section: "look",
  model: "",
  id: "",
  sample: "",
  layer: "",
  head: "mean",
  query: "cls", // or the patch in the middle of a model without a class token
  direction: "from",
  stage: "reattention",
  scale: "block",
  overlay: "65",
  view: "heads",
  variant: "column",
  threshold: "0.9",
  pair: "",
  other: "",
  measure: "similarity.column",
};

const ALLOWED = {
  section: /^(look|understand|compare|monitor)$/,
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
  measure: /^[a-z_.]{1,40}$/,
};

/** The URL fragment of what is shown; defaults are left out. */
export function toHash(values) {
  const entries = Object.entries(values).filter(([name, value]) => value !== DEFAULTS[name]);
  return entries.length ? `#${new URLSearchParams(entries)}`.replaceAll("%2C", ",") : "";
}

/** What a URL fragment says; anything unknown or malformed has its default. */
export function fromHash(hash) {
  const values = { ...DEFAULTS };
  for (const [name, value] of new URLSearchParams(hash.slice(1)))
    if (Object.hasOwn(DEFAULTS, name) && (ALLOWED[name] ?? /^[\w.-]{0,200}$/).test(value)) values[name] = value;
  return values;
}

export class State {
  #values = fromHash(location.hash);
  #listeners = [];
  #writing = 0;

  constructor() {
    addEventListener("hashchange", () => {
      if (this.hash === location.hash) return;
      this.#values = fromHash(location.hash);
      this.#notify(true);
    });
  }

  get values() {
    return this.#values;
  }

  get hash() {
    return toHash(this.#values);
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
    // Browsers limit how often the URL may change, and a dragged slider would exceed that.
    clearTimeout(this.#writing);
    this.#writing = setTimeout(
      () => history.replaceState(null, "", this.hash || location.pathname + location.search),
      100,
    );
    this.#notify(false);
  }

  /** `listener(navigated)` is called after each change; `navigated` if the user changed the URL. */
  listen(listener) {
    this.#listeners.push(listener);
  }

  #notify(navigated) {
    for (const listener of this.#listeners) listener(navigated);
  }
}
