// The full N x N map of one block with a crosshair that is linked to the picture. A gap separates the
// tokens before the patches, if there are any, from the patches.

import { knownQuery, queryOf, reduce, REDUCTIONS, token, tokenName } from "./attention.js";
import { writeColours } from "./colour.js";
import { make } from "./dom.js";
import { formatNumber } from "./format.js";
import { showBar } from "./paint.js";
import { makeSelectable } from "./picker.js";
import { Picture } from "./picture.js";

export class Raw {
  #state;
  #scene;
  #key = null; // null stands for the first patch, until a key is selected
  #extraQuery = null; // a token that only this view can select: neither a patch nor the class token
  #map;

  constructor(state) {
    this.#state = state;
    this.picture = new Picture(state);
    this.canvas = make("canvas", { className: "pixels" });
    this.across = make("span", { className: "hair across" });
    this.down = make("span", { className: "hair down" });
    this.plot = make("div", { className: "plot square" }, this.canvas, this.across, this.down);
    this.readout = make("p", { className: "readout" });
    this.bar = make("div");
    this.order = make("p");
    this.element = make(
      "div",
      { className: "raw" },
      this.plot,
      make(
        "div",
        {},
        this.order,
        this.readout,
        make("div", { className: "linked" }, this.picture.element),
        this.bar,
      ),
    );
    this.announce = makeSelectable(this.plot, {
      label: "Raw map, queries by keys: arrow keys move the crosshair",
      size: () => [this.#side, this.#side],
      at: () => [this.#pixel(this.#query), this.#pixel(this.#key)],
      choose: (row, column) => {
        const { facts } = this.#scene;
        const query = this.#token(row, this.#query);
        this.#key = this.#token(column, this.#key);
        const pinned = queryOf(query, facts);
        this.#extraQuery = token(pinned, facts) === query ? null : query;
        const selected = pinned === knownQuery(state.values.query, facts);
        if (this.#extraQuery !== null || selected) this.#show(query, this.#key);
        else state.set({ query: pinned });
      },
      hover: (row, column) => this.#show(this.#token(row), this.#token(column)),
      leave: () => this.#show(this.#query, this.#key),
      text: () => this.readout.textContent,
    });
  }

  draw(scene, block, seen) {
    if (scene.pinned !== this.#scene?.pinned || scene.model !== this.#scene.model) this.#extraQuery = null;
    this.#scene = scene;
    this.picture.draw(scene, seen);
    this.element.setAttribute("aria-busy", String(!block));
    if (!block) return;
    const { tokens, heads, prefix } = scene.facts;
    this.order.textContent = orderOf(scene.facts);
    this.#key = Math.min(this.#key ?? prefix, tokens - 1);
    const key = [scene.stage, scene.layer, scene.head, scene.model, block.length].join(" ");
    if (this.drawn !== key || this.source !== block.buffer) {
      this.#map = scene.rollout ? block : reduce(block, heads, scene.head);
      this.scale = rangeOfPatches(this.#map, scene.facts, scene.signed(scene.layer));
      this.#paint();
      const head = REDUCTIONS[scene.head] ?? `head ${scene.head}`;
      const what = scene.rollout ? "rollout" : `block ${scene.layer}, ${head}`;
      showBar(this.bar, this.scale, `Attention, ${what}, range of entries between patches`);
      this.drawn = key;
      this.source = block.buffer;
    }
    this.#show(this.#query, this.#key);
    this.announce();
  }

  get map() {
    return this.#map;
  }

  get #side() {
    return this.#scene.facts.tokens + this.#gap;
  }

  get #query() {
    return this.#extraQuery ?? token(this.#state.values.query, this.#scene.facts);
  }

  /** Pixels between the tokens before the patches and the patches. */
  get #gap() {
    return this.#scene.facts.prefix ? 1 : 0;
  }

  /** The row or column where a token is drawn. */
  #pixel(index) {
    return index < this.#scene.facts.prefix ? index : index + this.#gap;
  }

  /** The token drawn at a row or column; for the gap, the token across it from `previous`. */
  #token(pixel, previous = 0) {
    const { prefix } = this.#scene.facts;
    if (this.#gap && pixel === prefix) return previous < prefix ? prefix : prefix - 1;
    return pixel < prefix ? pixel : pixel - this.#gap;
  }

  #paint() {
    const { tokens, prefix } = this.#scene.facts;
    const side = this.#side;
    this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(side, side);
    const row = new Uint8ClampedArray(4 * tokens);
    for (let query = 0; query < tokens; query++) {
      writeColours(this.#map.subarray(query * tokens, (query + 1) * tokens), this.scale, row);
      const start = 4 * this.#pixel(query) * side;
      image.data.set(row.subarray(0, 4 * prefix), start);
      image.data.set(row.subarray(4 * prefix), start + 4 * (prefix + this.#gap));
    }
    context.putImageData(image, 0, 0);
  }

  #show(query, key) {
    if (!this.#map) return;
    const { facts } = this.#scene;
    const side = this.#side;
    this.across.style.top = `${(100 * (this.#pixel(query) + 0.5)) / side}%`;
    this.down.style.left = `${(100 * (this.#pixel(key) + 0.5)) / side}%`;
    const value = this.#map[query * facts.tokens + key];
    this.readout.dataset.value = value;
    const pair = `${tokenName(query, facts)} attends to ${tokenName(key, facts)}`;
    this.readout.textContent = `${pair}: ${formatNumber(value)}`;
    this.picture.mark(query, key);
  }
}

const LIST = new Intl.ListFormat("en");

function orderOf(facts) {
  if (!facts.prefix) return "Each row is a query, each column a key: the patches, row by row.";
  const names = Array.from({ length: facts.prefix }, (_, index) => tokenName(index, facts));
  const first = `${facts.classToken ? "the " : ""}${LIST.format(names)}`;
  return `Each row is a query, each column a key. A gap separates ${first} from the patches, which follow row by row.`;
}

function rangeOfPatches(map, { tokens, prefix }, signed) {
  let limit = 0;
  for (let query = prefix; query < tokens; query++)
    for (let key = prefix; key < tokens; key++) limit = Math.max(limit, Math.abs(map[query * tokens + key]));
  return { signed, limit: limit || 1 };
}
