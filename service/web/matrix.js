// A square matrix of measures with numbered rows and columns, whose cells can be read and selected.

import { make } from "./dom.js";
import { formatNumber } from "./format.js";
import { numberAxis, paint, showBar } from "./paint.js";
import { makeSelectable, placeMarker } from "./picker.js";

export class Matrix {
  #rows = [];
  #at = [0, 0];

  /** `read(row, column, value)` describes a cell; `choose(row, column)` is called for a selected one. */
  constructor(label, read, choose = () => {}) {
    this.read = read;
    this.canvas = make("canvas", { className: "pixels" });
    this.marker = make("span", { className: "marker query" });
    this.plot = make("div", { className: "plot square" }, this.canvas, this.marker);
    this.across = make("div", { className: "across", aria: { hidden: "true" } });
    this.down = make("div", { className: "down", aria: { hidden: "true" } });
    this.readout = make("p", { className: "readout" });
    this.bar = make("div");
    this.element = make(
      "div",
      {},
      make("div", { className: "matrix" }, this.across, this.down, this.plot),
      this.readout,
      this.bar,
    );
    this.announce = makeSelectable(this.plot, {
      label: `${label}: arrow keys select a cell`,
      size: () => [this.#rows.length, this.#rows.length],
      at: () => this.#at,
      choose: (row, column) => {
        this.at = [row, column];
        choose(row, column);
      },
      hover: (row, column) => this.#read(row, column),
      leave: () => this.#read(...this.#at),
      text: () => this.readout.textContent,
    });
  }

  set at([row, column]) {
    const last = this.#rows.length - 1;
    this.#at = [Math.max(0, Math.min(row, last)), Math.min(column, last)];
    placeMarker(this.marker, this.#at, this.#rows.length, this.#rows.length);
    this.#read(...this.#at);
  }

  draw(rows, scale, caption) {
    this.#rows = rows;
    this.scale = scale;
    const count = rows.length;
    paint(this.canvas, rows.flat(), count, count, scale);
    numberAxis(this.across, count);
    numberAxis(this.down, count);
    showBar(this.bar, scale, caption);
    this.at = this.#at;
    this.announce();
  }

  #read(row, column) {
    this.readout.dataset.value = this.#rows[row][column];
    this.readout.textContent = this.read(row, column, formatNumber(this.#rows[row][column]));
  }
}
