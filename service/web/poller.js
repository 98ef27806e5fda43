// Asks for something again and again while it is wanted. Knows nothing about what it asks for.

export class Poller {
  value = null; // the last answer, kept while nothing is wanted
  error = null; // why there is no newer one
  at = null; // when it came: a Date
  #load;
  #changed;
  #waitMs;
  #wanted = null;
  #kept = null; // what `value` answers
  #controller = null;
  #timer = 0;

  /**
   * `load(key, signal)` asks, and `changed()` is called after each answer or failure. `waitMs(error)`
   * is how long to wait before asking again, after an answer (null) or a failure; Infinity: until
   * `retry()`.
   */
  constructor(load, changed, waitMs) {
    this.#load = load;
    this.#changed = changed;
    this.#waitMs = waitMs;
  }

  /** Ask for `key` from now on; null for nothing, which aborts a request under way. */
  want(key) {
    if (key === this.#wanted) return;
    this.#stop();
    this.#wanted = key;
    if (key === null) return;
    if (key !== this.#kept) this.value = this.error = this.at = null;
    this.#kept = key;
    this.#ask();
  }

  /** Ask now. */
  retry() {
    if (this.#wanted === null) return;
    this.#stop();
    this.#ask();
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#controller?.abort();
    this.#controller = null;
  }

  async #ask() {
    const controller = new AbortController();
    this.#controller = controller;
    try {
      const value = await this.#load(this.#wanted, controller.signal);
      if (controller.signal.aborted) return;
      Object.assign(this, { value, error: null, at: new Date() });
    } catch (error) {
      if (controller.signal.aborted) return;
      this.error = error;
    }
    const wait = this.#waitMs(this.error);
    if (wait < Infinity) this.#timer = setTimeout(() => this.#ask(), wait);
    this.#changed();
  }
}
