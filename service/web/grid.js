// The maps of all blocks and heads as small multiples on one canvas; selecting one selects its block
// and head.

import { patches } from "./attention.js";
import { make } from "./dom.js";
import { formatNumber } from "./format.js";
import { numberAxis, paintTiles, showBar } from "./paint.js";
import { makeSelectable, placeMarker } from "./picker.js";

export class Grid {
  #scene;

  constructor(state) {
    this.canvas = make("canvas", { className: "pixels" });
    this.marker = make("span", { className: "marker query", hidden: true });
    this.plot = make("div", { className: "plot" }, this.canvas, this.marker);
    this.across = make("div", { className: "across", aria: { hidden: "true" } });
    this.down = make("div", { className: "down", aria: { hidden: "true" } });
    this.bar = make("div");
    this.readout = make("p", { className: "readout" });
    const table = make("div", { className: "matrix wide" }, this.across, this.down, this.plot);
    this.element = make("div", {}, make("div", { className: "scroll" }, table), this.readout, this.bar);
    this.announce = makeSelectable(this.plot, {
      label: "All blocks (columns) and heads (rows): arrow keys select a map",
      size: () => [this.#scene.facts.heads, this.#scene.facts.layers],
      at: () => {
        const { layer, head } = state.values;
        return layer === "" || Number.isNaN(Number(head)) || Number.isNaN(Number(layer))
          ? this.#at
          : [Number(head), Number(layer)];
      },
      choose: (head, layer) => state.set({ layer, head }),
      hover: (head, layer) => this.#read(layer, head),
      leave: () => this.#read(...(this.#at ?? [0, this.#scene.layer ?? 0]).toReversed()),
      text: () => this.readout.textContent,
    });
  }

  draw(scene) {
    this.#scene = scene;
    this.element.setAttribute("aria-busy", String(!scene.rows));
    if (!scene.rows) return;
    const { layers, heads, rows, columns, patch } = scene.facts;
    const maps = [];
    const scales = [];
    for (let head = 0; head < heads; head++)
      for (let layer = 0; layer < layers; layer++) {
        const map = scene.headMap(layer, head);
        maps.push(patches(map, scene.facts));
        scales.push(this.#scale(layer, map));
      }
    paintTiles(this.canvas, maps, rows, columns, layers, scales);
    this.aspect = (this.canvas.width * patch.width) / (this.canvas.height * patch.height);
    this.canvas.style.aspectRatio = this.aspect;
    numberAxis(this.across, layers);
    numberAxis(this.down, heads);
    placeMarker(this.marker, this.#at, heads, layers);
    this.bar.hidden = scene.scale !== "all";
    const shared = scales.find((scale) => scale.signed) ?? scales[0];
    if (scene.scale === "all") showBar(this.bar, shared, "Attention, range of all blocks and heads");
    const [head, layer] = this.#at ?? [0, scene.layer ?? 0];
    this.#read(layer, head);
    this.announce();
  }

  get #at() {
    const { layer, head } = this.#scene;
    return layer === null || Number.isNaN(Number(head)) ? null : [Number(head), layer];
  }

  #scale(layer, map) {
    return this.#scene.scaleOfHead(layer, map);
  }

  #read(layer, head) {
    const map = this.#scene.headMap(layer, head);
    const scale = this.#scale(layer, map);
    let [least, most] = [Infinity, -Infinity];
    for (const value of patches(map, this.#scene.facts))
      [least, most] = [Math.min(least, value), Math.max(most, value)];
    const values = `${formatNumber(least)} to ${formatNumber(most)}`;
    const range = `${scale.signed ? "±" : "0 to "}${formatNumber(scale.limit)}`;
    this.readout.textContent = `Block ${layer}, head ${head}: ${values}; colour range ${range}`;
  }
}
