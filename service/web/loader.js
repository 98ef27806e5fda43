// Loads what views ask for while they draw, one request at a time, and aborts a request that no
// view asks for any more. Knows nothing about what it loads.

export class Loader {
  #cache;
  #changed;
  #wanted = new Map(); // key: { load, description }
  #failed = new Map(); // key: error, until it is asked for again
  #active = null; // { key, controller, description, loaded, total }

  /** `changed()` is called when there is something new to draw. */
  constructor(cache, changed) {
    this.#cache = cache;
    this.#changed = changed;
  }

  get active() {
    return this.#active;
  }

  /** Why something wanted is missing: an error, or { stopped, description } if the user cancelled it. */
  get failure() {
    for (const key of this.#wanted.keys()) if (this.#failed.has(key)) return this.#failed.get(key);
    return null;
  }

  /** Call before drawing: forgets what the last drawing asked for. */
  begin() {
    this.#wanted.clear();
  }

  peek(key) {
    return this.#cache.get(key);
  }

  /**
   * The value if it is loaded; else undefined, and `load({ signal, progress })` is called after the
   * drawing and resolves to { value, bytes }.
   */
  get(key, description, load) {
    const value = this.#cache.get(key);
    if (value === undefined) this.#wanted.set(key, { load, description });
    return value;
  }

  put(key, value, bytes) {
    this.#cache.put(key, value, bytes);
  }

  /** Call after drawing: loads what was missing. */
  end() {
    if (this.#active && !this.#wanted.has(this.#active.key)) {
      this.#active.controller.abort();
      this.#active = null;
    }
    // After a failure nothing else is requested: it would probably fail too, and the server may be busy.
    if (this.#active || (this.failure && !this.failure.stopped)) return;
    for (const [key, { load, description }] of this.#wanted)
      if (!this.#failed.has(key)) {
        this.#run(key, description, load);
        return;
      }
  }

  /** The user cancels the request under way. */
  cancel() {
    if (!this.#active) return;
    const { key, description, controller } = this.#active;
    controller.abort();
    this.#active = null;
    this.#failed.set(key, { stopped: true, description });
    this.#changed();
  }

  retry() {
    this.#failed.clear();
    this.#changed();
  }

  async #run(key, description, load) {
    const controller = new AbortController();
    const active = { key, description, controller, loaded: 0, total: 0 };
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
