// The numbers for one drawing of the page: the maps of the selected query, block and heads, and their
// colour scale.

import { isSigned, knownQuery, reduce, slice, token } from "./attention.js";
import { scaleOf } from "./scale.js";

export class Scene {
  /** `preview` is a query under the pointer; it is shown as far as its maps are already loaded. */
  constructor(attention, facts, values, preview = null) {
    Object.assign(this, { facts, preview, model: facts.name });
    this.rollout = values.layer === "rollout";
    this.stage = facts.mixing.size && !this.rollout ? values.stage : "softmax";
    this.direction = values.direction;
    this.scale = values.scale;
    this.layer = this.rollout
      ? null
      : Math.min(values.layer === "" ? facts.layers - 1 : Number(values.layer), facts.layers - 1);
    this.head = Number(values.head) >= facts.heads ? "mean" : values.head;
    this.pinned = knownQuery(values.query, facts);
    this.rows = attention.rows(this.model, this.stage, this.pinned, this.direction);
    this.query = this.pinned;
    this.layerRows = this.rows && !this.rollout ? this.#layer(this.rows) : undefined;
    if (preview) this.#showPreview(attention, preview);
    this.token = token(this.query, facts);
    if (this.rollout) {
      const whole = attention.rollout(this.model);
      this.map = whole && slice(whole, 1, facts.tokens, this.token, this.direction);
    } else this.map = this.layerRows && reduce(this.layerRows, facts.heads, this.head);
  }

  get key() {
    return [this.model, this.stage, this.direction, this.query].join(" ");
  }

  /** All heads of a block, [H, N]. */
  heads(layer) {
    const size = this.facts.heads * this.facts.tokens;
    return this.rows.subarray(layer * size, (layer + 1) * size);
  }

  headMap(layer, head) {
    const { heads, tokens } = this.facts;
    const start = (layer * heads + head) * tokens;
    return this.rows.subarray(start, start + tokens);
  }

  blockMap(layer) {
    return reduce(this.heads(layer), this.facts.heads, this.head);
  }

  signed(layer, head = this.head) {
    return layer !== null && isSigned(this.facts, this.stage, layer, head);
  }

  /** The colour scale of a block's map: over this map, over its block or over all blocks, as selected. */
  scaleOfBlock(layer, map) {
    const single = !Number.isNaN(Number(this.head));
    const group = {
      map: () => [map],
      block: () => (single ? [this.layer === layer ? this.layerRows : this.heads(layer)] : [map]),
      all: () => (single || !this.rows ? [this.rows ?? map] : this.#allBlocks()),
    }[this.rollout ? "map" : this.scale]();
    return single && group[0] !== map
      ? this.#patchScale(group[0], this.signed(layer))
      : scaleOf(group, this.signed(layer), this.facts.prefix);
  }

  /** The colour scale of one head's map in a block. */
  scaleOfHead(layer, map) {
    const signed = this.signed(layer, "0");
    if (this.scale === "map") return scaleOf([map], signed, this.facts.prefix);
    return this.#patchScale(
      this.scale === "all" && this.rows
        ? this.rows
        : this.layer === layer
          ? this.layerRows
          : this.heads(layer),
      signed,
    );
  }

  get rangeText() {
    if (this.rollout || this.scale === "map") return "range of this map";
    if (this.scale === "all") return "range of all blocks";
    return Number.isNaN(Number(this.head))
      ? "range of this block"
      : `range of all heads of block ${this.layer}`;
  }

  get blockText() {
    return this.rollout ? "rollout over all blocks" : `block ${this.layer}`;
  }

  #layer(rows) {
    const size = this.facts.heads * this.facts.tokens;
    return rows.subarray(this.layer * size, (this.layer + 1) * size);
  }

  #showPreview(attention, preview) {
    const rows = attention.peekRows(this.model, this.stage, preview, this.direction);
    if (rows) {
      this.rows = rows;
      this.query = preview;
      if (!this.rollout) this.layerRows = this.#layer(rows);
      return;
    }
    const block = this.rollout
      ? attention.peekRollout(this.model)
      : attention.peekBlockRows(this.model, this.stage, this.layer, preview, this.direction);
    if (!block) return;
    this.query = preview;
    if (!this.rollout) this.layerRows = block;
  }

  #allBlocks() {
    this.blockMaps ??= Array.from({ length: this.facts.layers }, (_, layer) => this.blockMap(layer));
    return this.blockMaps;
  }

  /** The scale of many maps laid end to end, computed over patches only and kept for the next call. */
  #patchScale(maps, signed) {
    const { tokens, prefix } = this.facts;
    this.limits ??= new Map();
    if (!this.limits.has(maps)) {
      let limit = 0;
      for (let i = 0; i < maps.length; i++) if (i % tokens >= prefix) limit = Math.max(limit, Math.abs(maps[i]));
      this.limits.set(maps, limit || 1);
    }
    return { signed, limit: this.limits.get(maps) };
  }
}

/** { strongest, weakest }: the patches' tokens with the largest and the smallest value. */
export function extremes(map, prefix) {
  let [strongest, weakest] = [prefix, prefix];
  for (let i = prefix + 1; i < map.length; i++) {
    if (map[i] > map[strongest]) strongest = i;
    if (map[i] < map[weakest]) weakest = i;
  }
  return { strongest, weakest };
}
