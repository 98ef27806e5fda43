// The strongest deviations of a monitored model, as a list whose entries select a measure and a block.

import { make } from "./dom.js";
import { strongestOf } from "./drift.js";
import { formatNumber } from "./format.js";

export class Strongest {
  constructor(state) {
    this.state = state;
    this.list = make("ol", { className: "strongest" });
    this.none = make("p", { className: "quiet" }, "None yet.");
    this.element = make("div", {}, this.list, this.none);
  }

  /** The buttons stay, so that the focus does, and change their words. */
  draw(model) {
    const found = strongestOf(model);
    const { children } = this.list;
    while (children.length > found.length) this.list.lastChild.remove();
    while (children.length < found.length) this.list.append(item());
    found.forEach((one, index) => this.#drawItem(children[index].firstChild, one));
    this.list.hidden = !found.length;
    this.none.hidden = Boolean(found.length);
  }

  #drawItem(button, { measure, stage, block, deviation, text, share, beyond }) {
    const { values } = this.state;
    const layer = String(block ?? "");
    const chosen = { measure, layer, ...(stage ? { stage } : {}) };
    button.onclick = () => this.state.set(chosen);
    const current = Object.entries(chosen).every(([name, value]) => values[name] === value);
    button.setAttribute("aria-current", String(current));
    button.classList.toggle("beyond", beyond);
    const [name, track, number] = button.children;
    name.textContent = text;
    track.firstChild.style.width = `${100 * share}%`;
    number.textContent = formatNumber(deviation);
  }
}

function item() {
  const track = make("span", { className: "bar-track" }, make("span", { className: "bar-fill" }));
  track.setAttribute("aria-hidden", "true");
  const parts = [make("span"), track, make("span", { className: "share" })];
  return make("li", {}, make("button", { type: "button" }, ...parts));
}
