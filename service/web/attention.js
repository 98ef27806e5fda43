// The attention maps of a model for a picture: which request delivers the maps to be shown, and the
// same reductions over heads as in the API.

import * as api from "./api.js";

const WHOLE_BYTES = 8e6; // up to this size, all maps of a model are loaded in one request

export const REDUCTIONS = {
  mean: "mean of heads",
  max: "maximum",
  max_abs: "maximum of absolute values",
  rms: "root mean square",
};

export const STAGES = { softmax: "softmax", reattention: "re-attention" };

/** The query that is shown first: the class token, or the patch in the middle. */
export const homeOf = ({ classToken, rows, columns }) =>
  classToken ? "cls" : `${Math.floor(rows / 2)},${Math.floor(columns / 2)}`;

/** The same in words. */
export const homeName = ({ classToken }) => (classToken ? "the class token" : "the patch in the middle");

/** Index of a query's token. A model without a class token takes the patch in the middle for it. */
export function token(query, facts) {
  const { rows, columns, prefix } = facts;
  const found = query === "cls" ? homeOf(facts) : query;
  if (found === "cls") return 0;
  const [row, column] = found.split(",").map(Number);
  return prefix + Math.min(row, rows - 1) * columns + Math.min(column, columns - 1);
}

/** [row, column] of a token, or null for one that is not a patch. */
export function cellOf(index, { columns, prefix }) {
  return index < prefix ? null : [Math.floor((index - prefix) / columns), (index - prefix) % columns];
}

/** The query that selects a token; tokens that no query selects count as the one shown first. */
export function queryOf(index, facts) {
  if (facts.classToken && index === 0) return "cls";
  return cellOf(index, facts)?.join(",") ?? homeOf(facts);
}

/** A query as this model has it: inside its grid, and of a token that it has. */
export const knownQuery = (query, facts) => queryOf(token(query, facts), facts);

/** A query in words. */
export const queryName = (query) => (query === "cls" ? "the class token" : `patch ${query}`);

/** The patches' part of a row of a map: they come after all other tokens. */
export const patches = (row, { rows, columns }) => row.subarray(row.length - rows * columns);

export function tokenName(index, facts) {
  const cell = cellOf(index, facts);
  if (cell) return `row ${cell[0]}, column ${cell[1]}`;
  if (!facts.classToken) return `register ${index}`;
  if (index === 0) return "class token";
  return index === 1 && facts.distilled ? "distillation token" : `extra token ${index}`;
}

/** Whether a block's values at a stage can be negative. */
export const isSigned = (facts, stage, layer, head = "0") =>
  stage === "reattention" && facts.mixing.has(layer) && head !== "max_abs" && head !== "rms";

export class Attention {
  #loader;
  #session;

  constructor(loader, session) {
    this.#loader = loader;
    this.#session = session;
  }

  /** Store the maps of one query that came with the classification. */
  storeRows(model, stage, { attention }) {
    const values = Float32Array.from(attention.values.flat(2));
    this.#loader.put(
      this.#rowsKey(model, this.#stage(model, stage), attention.query, "from"),
      values,
      values.byteLength,
    );
  }

  /** [L, H, N] of one query, or undefined until loaded. */
  rows(model, stage, query, direction) {
    stage = this.#stage(model, stage);
    const ready = this.peekRows(model, stage, query, direction);
    if (ready) return ready;
    const facts = this.#session.facts(model);
    if (small(facts) && query !== "cls") {
      this.#whole(model, stage);
      return undefined;
    }
    const description = `maps of ${queryName(query)} in every block of ${model}`;
    return this.#get(this.#rowsKey(model, stage, query, direction), model, description, {
      stage,
      layer: "all",
      head: "all",
      query,
      direction,
    });
  }

  peekRows(model, stage, query, direction) {
    stage = this.#stage(model, stage);
    const key = this.#rowsKey(model, stage, query, direction);
    const kept = this.#loader.peek(key);
    if (kept) return kept;
    const whole = this.#loader.peek(this.#wholeKey(model, stage));
    if (!whole) return undefined;
    const { layers, heads, tokens } = this.#session.facts(model);
    const index = token(query, this.#session.facts(model));
    return slice(whole, layers * heads, tokens, index, direction);
  }

  /** [H, N] of one query in one block, if the block is already loaded. */
  peekBlockRows(model, stage, layer, query, direction) {
    const block = this.peekBlock(model, stage, layer);
    const facts = this.#session.facts(model);
    return block && slice(block, facts.heads, facts.tokens, token(query, facts), direction);
  }

  /** [H, N, N] of one block, or undefined until loaded. */
  block(model, stage, layer) {
    const facts = this.#session.facts(model);
    stage = this.#stage(model, stage);
    if (small(facts)) {
      this.#whole(model, stage);
      return this.peekBlock(model, stage, layer);
    }
    const query = { stage, layer, head: "all", query: "all" };
    return this.#get(this.#blockKey(model, stage, layer), model, `block ${layer} of ${model}`, query);
  }

  peekBlock(model, stage, layer) {
    stage = this.#stage(model, stage);
    const { heads, tokens } = this.#session.facts(model);
    const whole = this.#loader.peek(this.#wholeKey(model, stage));
    const size = heads * tokens * tokens;
    if (whole) return whole.subarray(layer * size, (layer + 1) * size);
    return this.#loader.peek(this.#blockKey(model, stage, layer));
  }

  /** [N, N] over all blocks, or undefined until loaded. */
  rollout(model) {
    const query = { stage: "softmax", layer: "rollout", query: "all" };
    return this.#get(this.#key(model, "rollout"), model, `the rollout of ${model}`, query);
  }

  peekRollout(model) {
    return this.#loader.peek(this.#key(model, "rollout"));
  }

  #whole(model, stage) {
    const query = { stage, layer: "all", head: "all", query: "all" };
    return this.#get(this.#wholeKey(model, stage), model, `all maps of ${model}`, query);
  }

  #get(key, model, description, query) {
    return this.#loader.get(key, description, ({ signal, progress }) =>
      this.#session.withImage(
        model,
        async (id) => {
          const { values } = await api.attentionMaps({ id, model, ...query }, { signal, progress });
          return { value: values, bytes: values.byteLength };
        },
        signal,
      ),
    );
  }

  /** A model without re-attention has one stage only. */
  #stage(model, stage) {
    return this.#session.facts(model).mixing.size ? stage : "softmax";
  }

  #key(model, ...parts) {
    return [model, this.#session.seen(model).id, ...parts].join(" ");
  }

  #rowsKey = (model, stage, query, direction) => this.#key(model, stage, "rows", query, direction);
  #wholeKey = (model, stage) => this.#key(model, stage, "whole");

  /** A block without re-attention has the same maps at both stages. */
  #blockKey(model, stage, layer) {
    return this.#key(model, this.#session.facts(model).mixing.has(layer) ? stage : "softmax", "block", layer);
  }
}

const small = ({ layers, heads, tokens }) => 4 * layers * heads * tokens * tokens <= WHOLE_BYTES;

/** Row (direction "from") or column ("to") `index` of each of `count` maps [N, N], as [count, N]. */
export function slice(maps, count, tokens, index, direction) {
  const rows = new Float32Array(count * tokens);
  for (let map = 0; map < count; map++) {
    const start = map * tokens * tokens;
    if (direction === "from") {
      const at = start + index * tokens;
      rows.set(maps.subarray(at, at + tokens), map * tokens);
    } else for (let i = 0; i < tokens; i++) rows[map * tokens + i] = maps[start + i * tokens + index];
  }
  return rows;
}

/** One map from those of all `heads`, laid end to end: a single head's, or a reduction over them. */
export function reduce(maps, heads, head) {
  const size = maps.length / heads;
  if (!(head in REDUCTIONS)) {
    const index = Math.min(Number(head), heads - 1);
    return maps.subarray(index * size, (index + 1) * size);
  }
  const result = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    let found = head === "max" ? -Infinity : 0;
    for (let h = 0; h < heads; h++) {
      const value = maps[h * size + i];
      if (head === "mean") found += value / heads;
      else if (head === "rms") found += (value * value) / heads;
      else found = Math.max(found, head === "max" ? value : Math.abs(value));
    }
    result[i] = head === "rms" ? Math.sqrt(found) : found;
  }
  return result;
}
