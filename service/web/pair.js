// The maps of two blocks for one query, side by side on one colour scale, beside the picture on which
// the query is selected.

import { patches, queryName, reduce, REDUCTIONS } from "./attention.js";
import { make } from "./dom.js";
import { paint, showBar } from "./paint.js";
import { Picture } from "./picture.js";
import { readout, readValues } from "./read.js";
import { scaleOf } from "./scale.js";

const SIDES = [0, 1];

export class Pair {
  maps = null; // what is drawn: { maps, facts, pair }

  constructor(state) {
    this.title = make("h3");
    this.bar = make("div");
    this.line = readout();
    this.picture = new Picture(state);
    this.names = SIDES.map(() => make("figcaption"));
    this.canvases = SIDES.map((side) => {
      const canvas = make("canvas", { className: "pixels" });
      readValues(canvas, () => this.#drawn(side), this.line);
      return canvas;
    });
    this.figures = make(
      "div",
      { className: "pair" },
      make("figure", {}, make("figcaption", {}, "Query"), this.picture.element),
      ...SIDES.map((side) => make("figure", {}, this.names[side], this.canvases[side])),
    );
    this.element = make("div", {}, this.title, this.figures, this.line, this.bar);
  }

  /** `pair` holds two block numbers; `rows` [L, H, N] are the maps of the query once they are loaded. */
  draw(scene, seen, pair, rows) {
    this.picture.draw(scene, seen);
    this.title.textContent = `Blocks ${pair[0]} and ${pair[1]}`;
    this.maps = null;
    if (!rows) return;
    const { facts } = scene;
    const { heads, tokens, rows: down, columns: across } = facts;
    const block = (layer) => rows.subarray(layer * heads * tokens, (layer + 1) * heads * tokens);
    const maps = pair.map((layer) => reduce(block(layer), heads, scene.head));
    const signed = pair.some((layer) => scene.signed(layer));
    const scale = scaleOf(maps, signed, facts.prefix);
    maps.forEach((map, side) => {
      paint(this.canvases[side], patches(map, facts), down, across, scale);
      this.names[side].textContent = `Block ${pair[side]}`;
    });
    this.maps = { maps, facts, pair };
    const what = REDUCTIONS[scene.head] ?? `head ${scene.head}`;
    showBar(this.bar, scale, `Attention of ${queryName(scene.pinned)}, ${what}, same range for both blocks`);
  }

  #drawn(side) {
    if (!this.maps) return null;
    const { maps, facts, pair } = this.maps;
    const { rows, columns } = facts;
    return { name: `block ${pair[side]}`, values: patches(maps[side], facts), rows, columns };
  }
}
