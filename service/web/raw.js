// The raw N x N map of one block, linked to the picture by a cross-hair; the class token stands apart.

import { queryOf, reduce, REDUCTIONS, token, tokenName } from "./attention.js";
import { colours } from "./colour.js";
import { make } from "./dom.js";
import { showBar } from "./paint.js";
import { pick } from "./picker.js";
import { Picture } from "./picture.js";
import { number } from "./scale.js";

export class Raw {
  #scene;
  #key = 1;
  #map;

  constructor(state) {
    this.picture = new Picture(state);
    this.canvas = make("canvas", { className: "pixels" });
    this.across = make("span", { className: "hair across" });
    this.down = make("span", { className: "hair down" });
    this.plot = make("div", { className: "plot square" }, this.canvas, this.across, this.down);
    this.readout = make("p", { className: "readout" });
    this.bar = make("div");
    this.element = make(
      "div",
      { className: "raw" },
      this.plot,
      make(
        "div",
        {},
        make(
          "p",
          {},
          "Each row is a query, each column a key: the class token first and apart, then the patches row by row.",
        ),
        this.readout,
        make("div", { className: "linked" }, this.picture.element),
        this.bar,
      ),
    );
    this.tell = pick(this.plot, {
      label: "Raw map, queries by keys: arrow keys move the cross-hair",
      size: () => [this.#side, this.#side],
      at: () => [pixel(token(state.values.query, this.#scene.facts)), pixel(this.#key)],
      choose: (row, column) => {
        const before = token(state.values.query, this.#scene.facts);
        // Across the gap beside the class token, on the way there or back.
        const query = row === 1 ? (before === 0 ? 1 : 0) : back(row);
        this.#key = column === 1 ? (this.#key === 0 ? 1 : 0) : back(column);
        if (query === before) this.#show(query, this.#key);
        else state.set({ query: queryOf(query, this.#scene.facts) });
      },
      hover: (row, column) => this.#show(back(row), back(column)),
      leave: () => this.#show(this.#query, this.#key),
      text: () => this.readout.textContent,
    });
  }

  draw(scene, block, seen) {
    this.#scene = scene;
    this.picture.draw(scene, seen);
    this.element.setAttribute("aria-busy", String(!block));
    if (!block) return;
    const { tokens, heads } = scene.facts;
    this.#key = Math.min(this.#key, tokens - 1);
    const key = [scene.stage, scene.layer, scene.head, scene.model, block.length].join(" ");
    if (this.drawn !== key || this.source !== block.buffer) {
      this.#map = scene.rollout ? block : reduce(block, heads, scene.head);
      this.scale = rangeOfPatches(this.#map, tokens, scene.signed(scene.layer));
      this.#paint(tokens);
      showBar(
        this.bar,
        this.scale,
        `Attention, ${scene.rollout ? "rollout" : `block ${scene.layer}, ${REDUCTIONS[scene.head] ?? `head ${scene.head}`}`}, range between patches`,
      );
      this.drawn = key;
      this.source = block.buffer;
    }
    this.#show(this.#query, this.#key);
    this.tell();
  }

  get map() {
    return this.#map;
  }

  get #side() {
    return this.#scene.facts.tokens + 1;
  }

  get #query() {
    return token(this.#scene.pinned, this.#scene.facts);
  }

  #paint(tokens) {
    const side = tokens + 1;
    this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(side, side);
    const row = new Uint8ClampedArray(4 * tokens);
    for (let query = 0; query < tokens; query++) {
      colours(this.#map.subarray(query * tokens, (query + 1) * tokens), this.scale, row);
      const start = 4 * pixel(query) * side;
      image.data.set(row.subarray(0, 4), start);
      image.data.set(row.subarray(4), start + 8);
    }
    context.putImageData(image, 0, 0);
  }

  #show(query, key) {
    if (!this.#map) return;
    const { facts } = this.#scene;
    const side = this.#side;
    this.across.style.top = `${(100 * (pixel(query) + 0.5)) / side}%`;
    this.down.style.left = `${(100 * (pixel(key) + 0.5)) / side}%`;
    const value = this.#map[query * facts.tokens + key];
    this.readout.dataset.value = value;
    this.readout.textContent = `${tokenName(query, facts)} looks at ${tokenName(key, facts)}: ${number(value)}`;
    this.picture.mark(query, key);
  }
}

const pixel = (index) => (index === 0 ? 0 : index + 1);
const back = (position) => (position < 2 ? position : position - 1);

function rangeOfPatches(map, tokens, signed) {
  let limit = 0;
  for (let query = 1; query < tokens; query++)
    for (let key = 1; key < tokens; key++) limit = Math.max(limit, Math.abs(map[query * tokens + key]));
  return { signed, limit: limit || 1 };
}
