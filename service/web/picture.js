// A small copy of the picture that the model saw, on which a query can be selected.

import { cellOf, homeName, tokenName, token } from "./attention.js";
import { make } from "./dom.js";
import { paintPicture } from "./paint.js";
import { makeSelectable, placeMarker } from "./picker.js";

export class Picture {
  #scene;

  constructor(state) {
    this.canvas = make("canvas", { className: "pixels" });
    this.marker = make("span", { className: "marker query" });
    this.key = make("span", { className: "marker key", hidden: true });
    this.element = make("div", { className: "stack" }, this.canvas, this.marker, this.key);
    this.announce = makeSelectable(this.element, {
      label: "Query patch on the picture: arrow keys move it",
      size: () => this.#grid,
      at: () => cellOf(token(state.values.query, this.#scene.facts), this.#scene.facts),
      choose: (row, column) => state.set({ query: `${row},${column}` }),
      home: () => state.set({ query: "cls" }),
      homeName: () => homeName(this.#scene.facts),
      text: () => `Query: ${tokenName(token(this.#scene.pinned, this.#scene.facts), this.#scene.facts)}`,
    });
  }

  draw(scene, seen) {
    this.#scene = scene;
    if (this.pixels !== seen.pixels) paintPicture(this.canvas, seen.pixels);
    this.pixels = seen.pixels;
    this.#place(this.marker, token(scene.pinned, scene.facts));
    this.announce();
  }

  /** Mark a query and a key instead of the selected query. */
  mark(query, key) {
    this.#place(this.marker, query);
    this.#place(this.key, key);
  }

  /** Rows and columns of patches. */
  get #grid() {
    return [this.#scene.facts.rows, this.#scene.facts.columns];
  }

  #place(marker, index) {
    placeMarker(marker, cellOf(index, this.#scene.facts), ...this.#grid);
  }
}
