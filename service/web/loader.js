// Loads what views ask for while they draw, one request at a time; what no view asks for any
// more is given up. Knows nothing of what it loads.

export class Loader {
  #cache;
  #changed;
  #wanted = new Map(); // key: { load, words }
  #failed = new Map(); // key: error, until it is asked for again
  #active = null; // { key, controller, words, loaded, total }

  /** `changed()` is called when there is something new to draw. */
  constructor(cache, changed) {
    this.#cache = cache;
    this.#changed = changed;
  }

  get active() {
    return this.#active;
  }

  /** Why something wanted is not here: an error, or { stopped, words } if a person stopped it. */
  get failure() {
    for (const key of this.#wanted.keys()) if (this.#failed.has(key)) return this.#failed.get(key);
    return null;
  }

  /** Before a drawing: forget what the last one asked for. */
  begin() {
    this.#wanted.clear();
  }

  peek(key) {
    return this.#cache.get(key);
  }

  /** A value if it is here; else nothing, and it is loaded by `load({ signal, progress })`. */
  get(key, words, load) {
    const value = this.#cache.get(key);
    if (value === undefined) this.#wanted.set(key, { load, words });
    return value;
  }

  put(key, value, bytes) {
    this.#cache.put(key, value, bytes);
  }

  /** After a drawing: load what it missed. */
  end() {
    if (this.#active && !this.#wanted.has(this.#active.key)) {
      this.#active.controller.abort();
      this.#active = null;
    }
    // What failed once would fail for the others too, and a busy server is left alone.
    if (this.#active || (this.failure && !this.failure.stopped)) return;
    for (const [key, { load, words }] of this.#wanted)
      if (!this.#failed.has(key)) {
        this.#run(key, words, load);
        return;
      }
  }

  /** A person wants no more of it. */
  cancel() {
    if (!this.#active) return;
    const { key, words, controller } = this.#active;
    controller.abort();
    this.#active = null;
    this.#failed.set(key, { stopped: true, words });
    this.#changed();
  }

  retry() {
    this.#failed.clear();
    this.#changed();
  }

  async #run(key, words, load) {
    const controller = new AbortController();
    const active = { key, words, controller, loaded: 0, total: 0 };
    this.#active = active;
    const progress = (loaded, total) => {
      Object.assign(active, { loaded, total });
      if (this.#active === active) this.#changed(true);
    };
    this.#changed(true);
    try {
      const { value, bytes } = await load({ signal: controller.signal, progress });
      this.#cache.put(key, value, bytes);
    } catch (error) {
      if (this.#active === active) this.#failed.set(key, error);
    }
    if (this.#active !== active) return;
    this.#active = null;
    this.#changed();
  }
}
