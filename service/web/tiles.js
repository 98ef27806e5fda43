// Small maps to choose from, as one group of radio buttons; CSS lays them out as a strip or a grid.

import { make } from "./dom.js";
import { paint } from "./paint.js";
import { readout, readValues } from "./read.js";

let groups = 0;

export class Tiles {
  #name = `tiles-${groups++}`;
  #key = "";
  #tiles = new Map();

  constructor(legend, className, choose) {
    this.list = make("div", { className: `tiles ${className}` });
    this.element = make("fieldset", { className: "tileset" }, make("legend", {}, legend), this.list);
    this.line = readout();
    this.element.append(this.line);
    this.choose = choose;
  }

  set legend(text) {
    this.element.querySelector("legend").textContent = text;
  }

  /** Make one tile for each [value, text, spoken text, mark]. */
  set options(options) {
    const key = JSON.stringify(options);
    if (key === this.#key) return;
    this.#key = key;
    this.#tiles = new Map(
      options.map(([value, text, spoken, mark]) => [value, this.#tile(value, text, spoken, mark)]),
    );
    this.list.replaceChildren(...[...this.#tiles.values()].map((tile) => tile.label));
  }

  set value(chosen) {
    for (const [value, tile] of this.#tiles) tile.input.checked = value === chosen;
  }

  /** Draw a tile's map [rows, columns], with `caption` below it. */
  draw(value, values, rows, columns, scale, caption = "") {
    const tile = this.#tiles.get(value);
    paint(tile.canvas, values, rows, columns, scale);
    tile.map = { name: tile.spoken, values, rows, columns };
    tile.caption.textContent = caption;
    tile.label.classList.remove("empty");
  }

  /** Show that a tile's map is not loaded yet. */
  clear(value) {
    const tile = this.#tiles.get(value);
    tile.canvas.width = tile.canvas.height = 1;
    tile.map = null;
    tile.label.classList.add("empty");
  }

  /** What is drawn, for download. */
  get panels() {
    return [...this.#tiles].map(([, tile]) => ({
      label: `${tile.text}   ${tile.caption.textContent.split("\n")[0]}`,
      canvas: tile.canvas,
    }));
  }

  #tile(value, text, spoken, mark) {
    const input = make("input", { type: "radio", name: this.#name, value, aria: { label: spoken } });
    input.addEventListener("change", () => this.choose(value));
    const canvas = make("canvas", { className: "pixels", width: 1, height: 1, aria: { hidden: "true" } });
    const caption = make("small", {});
    const head = make(
      "span",
      { className: "tile-name", aria: { hidden: "true" } },
      text,
      mark ? make("b", { title: "re-attention mixes the heads of this block" }, mark) : null,
    );
    const label = make("label", {}, input, canvas, head, caption);
    const tile = { label, input, canvas, caption, text, spoken: spoken.split(",")[0], map: null };
    // The input covers the canvas and receives its events.
    readValues(input, () => tile.map, this.line, canvas);
    return tile;
  }
}
