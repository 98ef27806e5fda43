// How alike blocks, heads and features are: the paper's measures of one model and picture.

import * as api from "./api.js";
import { reduce, REDUCTIONS, STAGES } from "./attention.js";
import { Chart } from "./chart.js";
import { make, radios } from "./dom.js";
import { card } from "./download.js";
import { Matrix } from "./matrix.js";
import { paint, showBar } from "./paint.js";
import { Picture } from "./picture.js";
import { readout, readValues } from "./read.js";
import { number, percent, scaleOf } from "./scale.js";
import { Tiles } from "./tiles.js";

export const VARIANTS = {
  column: "Cosine over queries, the paper’s Eq. 2: can tell whether a token contributes alike to every output; cannot tell which tokens are attended when all queries attend alike.",
  row: "Cosine over keys: can tell whether a token reads from the same places; near-uniform maps look alike here too.",
  centred: "Cosine over queries after each column’s mean is taken off: free of what uniform attention adds; cannot tell how strong the attention is.",
};

/** The measures of a model and stage, or nothing yet. Counting needs no other threshold's answer. */
export function measures(loader, session, model, stage, threshold = 0.9) {
  const { id } = session.seen(model);
  const key = [model, id, "similarity", stage, threshold].join(" ");
  return loader.get(key, `similarity of ${model}, ${STAGES[stage]} stage`, ({ signal }) =>
    session.withImage(model, async (id) => {
      const value = await api.similarity({ id, model, stage, threshold }, { signal });
      return { value, bytes: 2e5 };
    }, signal),
  );
}

/** Blocks more alike their predecessor than a threshold. */
export const similarBlocks = (neighbours, threshold) =>
  neighbours.flatMap((value, index) => (value > threshold ? [index + 1] : []));

/** From zero where nothing is negative, else around it: similarities end at 1. */
export const similarityScale = (...matrices) => ({
  signed: matrices.some((rows) => rows.some((row) => row.some((value) => value < 0))),
  limit: 1,
});

export class Understand {
  #settled = null;

  constructor(element, state, shared) {
    this.state = state;
    this.shared = shared;
    this.variant = radios("variant", "Measured over", [["column", "column"], ["row", "row"], ["centred", "centred"]], (variant) => state.set({ variant }));
    this.sentence = make("p", { className: "sentence" });
    this.matrix = new Matrix("Similarity of all pairs of blocks", (p, q, value) => `Blocks ${p} and ${q}: ${value}`, (p, q) => state.set({ pair: `${p},${q}` }));
    this.pair = make("div", { className: "pair" });
    this.pairTitle = make("h3");
    this.pairBar = make("div");
    this.pairCanvases = [0, 1].map(() => make("canvas", { className: "pixels" }));
    this.pairLine = readout();
    this.pairCanvases.forEach((canvas, side) =>
      readValues(canvas, () => this.pairMaps && { name: `block ${this.pairMaps.pair[side]}`, values: this.pairMaps.maps[side].subarray(1), rows: this.pairMaps.grid, columns: this.pairMaps.grid }, this.pairLine),
    );
    this.pairNames = [0, 1].map(() => make("figcaption"));
    this.picture = new Picture(state);
    this.pair.append(make("figure", {}, make("figcaption", {}, "Query"), this.picture.element), ...this.pairCanvases.map((canvas, side) => make("figure", {}, this.pairNames[side], canvas)));

    this.neighbours = new Chart("Similarity of each block to the one before it");
    this.threshold = make("input", { type: "range", min: "0.05", max: "0.995", step: "0.005", id: "threshold" });
    this.thresholdText = make("output", { htmlFor: "threshold" });
    this.threshold.addEventListener("input", () => state.set({ threshold: Number(this.threshold.value) }));
    this.threshold.addEventListener("change", () => {
      this.#settled = state.values.threshold;
      shared.redraw();
    });
    this.count = make("p", { className: "count", id: "similar-count" });
    this.pairs = make("p", { className: "quiet" });

    this.headTiles = new Tiles("Every block", "small", (layer) => state.set({ layer }));
    this.heads = new Matrix("Similarity of heads in a block", (p, q, value) => `Heads ${p} and ${q}: ${value}`);
    this.features = new Chart("Similarity of each block's features to the last block's");
    this.entropy = new Chart("Entropy of attention");
    this.distance = new Chart("Attention distance");

    element.append(
      card("Similarity of blocks", this, () => this.#takeMatrix(), this.variant.element, this.sentence,
        make("div", { className: "two" }, this.matrix.element, make("div", {}, this.pairTitle, this.pair, this.pairLine, this.pairBar))),
      card("Neighbours", this, () => this.#takeChart(this.neighbours, "neighbours", () => this.data.neighbours.mean),
        make("p", {}, "How alike each block is to the one before it. Above the line a block counts as similar; move the line."),
        this.neighbours.element, make("label", { className: "slide", htmlFor: "threshold" }, "Threshold ", this.threshold, this.thresholdText), this.count, this.pairs),
      card("Heads of a block", this, () => this.#takeHeads(),
        make("p", {}, "Column cosine between the heads of one block: low means that heads read differently."),
        make("div", { className: "two" }, this.heads.element, this.headTiles.element)),
      card("Features", this, () => this.#takeChart(this.features, "features", () => this.data.features),
        make("p", {}, "Cosine of each block’s output to the last one’s: flat near 1 means that late blocks change little."), this.features.element),
      card("Entropy", this, () => this.#takeChart(this.entropy, "entropy", () => this.soft.entropy, "softmax"),
        make("p", {}, "How spread attention is, in nats; the line is uniform attention. Defined before heads are mixed (softmax stage)."), this.entropy.element),
      card("Attention distance", this, () => this.#takeChart(this.distance, "attention_distance", () => this.soft.attention_distance, "softmax"),
        make("p", {}, "How far attention reaches, in input pixels, weighted by attention (softmax stage)."), this.distance.element),
    );
    element.classList.add("cards");
  }

  draw(scene, { loader, session, attention }) {
    const { values } = this.state;
    const { facts } = scene;
    this.scene = scene;
    this.#settled ??= values.threshold;
    const stage = facts.mixing.size ? values.stage : "softmax";
    const base = measures(loader, session, facts.name, stage, this.#settled) ?? this.#previous(facts.name, stage, session);
    if (base) this.data = base;
    if (base) this.kept = { data: base, key: this.#key(facts.name, stage, session) };
    const soft = stage === "softmax" ? base : measures(loader, session, facts.name, "softmax");
    if (soft) this.soft = soft;
    this.variant.value = values.variant;
    this.sentence.textContent = VARIANTS[values.variant];
    if (base) {
      this.#drawMatrix(base, values, stage);
      this.#drawNeighbours(base, values);
      this.#drawHeads(base, scene, stage);
      const xs = base.features.map((_, layer) => String(layer));
      this.features.draw({ xs, series: [{ name: "to the last block", values: base.features }], low: Math.min(0, ...base.features), high: 1 });
    }
    if (soft) this.#drawCurves(soft, facts);
    this.#drawPair(scene, values, attention);
  }

  #key = (model, stage, session) => [model, stage, session.seen(model).id].join(" ");

  /** The same measures at the last threshold: only the shares of pairs differ. */
  #previous(model, stage, session) {
    return this.kept?.key === this.#key(model, stage, session) ? this.kept.data : undefined;
  }

  #drawMatrix(base, values, stage) {
    const rows = base.matrix[values.variant];
    this.matrix.draw(rows, similarityScale(rows), `Mean cosine, ${values.variant}, ${STAGES[stage]} stage`);
    this.matrix.at = this.#pairOf(rows.length);
  }

  #pairOf(layers) {
    const { pair } = this.state.values;
    const [p, q] = pair ? pair.split(",").map(Number) : [Math.max(0, layers - 2), layers - 1];
    return [Math.min(p, layers - 1), Math.min(q, layers - 1)];
  }

  #drawNeighbours(base, values) {
    const { mean, above_threshold: above } = base.neighbours;
    const threshold = Number(values.threshold);
    this.threshold.value = threshold;
    this.thresholdText.textContent = threshold.toFixed(3);
    const similar = similarBlocks(mean, threshold);
    this.count.dataset.count = similar.length;
    const which = similar.length ? `: ${similar.join(", ")}` : "";
    this.count.replaceChildren(make("strong", {}, `${similar.length} of ${mean.length}`), ` blocks are similar to the one before them${which}`);
    const settled = base.similar_blocks.threshold === threshold;
    const share = above.reduce((sum, one) => sum + one, 0) / (above.length || 1);
    this.pairs.textContent = settled ? `${percent(share)} of all pairs of head and token are above ${number(threshold)}.` : "";
    this.neighbours.draw({
      xs: mean.map((_, index) => String(index + 1)), series: [{ name: "to the one before", values: mean }], low: Math.min(0, ...mean), high: 1,
      line: { value: threshold, name: `threshold ${number(threshold)}` }, above: true,
      legend: "Filled points are above the threshold.",
    });
  }

  #drawHeads(base, scene, stage) {
    const scale = similarityScale(...base.heads);
    const layer = scene.layer ?? 0;
    const { heads, layers } = scene.facts;
    this.heads.draw(base.heads[layer], scale, `Column cosine between heads of block ${layer}, ${STAGES[stage]} stage`);
    this.headTiles.options = Array.from({ length: layers }, (_, index) => [String(index), String(index), `heads of block ${index}`, ""]);
    base.heads.forEach((rows, index) => this.headTiles.draw(String(index), rows.flat(), heads, heads, scale));
    this.headTiles.value = String(layer);
  }

  #drawCurves(soft, facts) {
    const xs = soft.entropy.map((_, layer) => String(layer));
    const lines = (table) => [
      ...Array.from({ length: facts.heads }, (_, head) => ({ name: `head ${head}`, values: table.map((row) => row[head]), faint: true })),
      { name: "mean of heads", values: table.map((row) => row.reduce((sum, one) => sum + one, 0) / row.length) },
    ];
    const most = Math.log(facts.tokens);
    this.entropy.draw({ xs, series: lines(soft.entropy), low: 0, high: most * 1.06, step: 1, line: { value: most, name: `uniform: ${number(most)}` }, legend: "Bold: mean of heads. Faint: each head." });
    const far = Math.max(...soft.attention_distance.flat());
    this.distance.draw({ xs, series: lines(soft.attention_distance), low: 0, high: far * 1.05, step: roundStep(far / 4), legend: "Bold: mean of heads. Faint: each head. Pixels of the model’s input." });
  }

  #drawPair(scene, values, attention) {
    const pair = this.#pairOf(scene.facts.layers);
    const rows = attention.rows(scene.model, scene.stage, scene.pinned, scene.direction);
    this.picture.draw(scene, this.shared.session.seen(scene.model));
    this.pairTitle.textContent = `Blocks ${pair[0]} and ${pair[1]}`;
    this.pair.setAttribute("aria-busy", String(!rows));
    if (!rows) return;
    const { heads, tokens, grid } = scene.facts;
    const maps = pair.map((layer) => reduce(rows.subarray(layer * heads * tokens, (layer + 1) * heads * tokens), heads, scene.head));
    const scale = scaleOf(maps, pair.some((layer) => scene.signed(layer)), 1);
    const what = REDUCTIONS[scene.head] ?? `head ${scene.head}`;
    maps.forEach((map, side) => {
      paint(this.pairCanvases[side], map.subarray(1), grid, grid, scale);
      this.pairNames[side].textContent = `Block ${pair[side]}`;
    });
    this.pairMaps = { maps, scale, grid, pair };
    showBar(this.pairBar, scale, `Attention of ${scene.pinned === "cls" ? "the class token" : `patch ${scene.pinned}`}, ${what}, one range for both`);
  }

  #call = (stage) => {
    const { id } = this.shared.session.seen(this.scene.model);
    return { path: "similarity", query: { id, model: this.scene.model, stage, threshold: this.state.values.threshold }, json: true };
  };

  get ready() {
    return Boolean(this.data && this.soft && this.pairMaps);
  }

  get #stage() {
    return this.data.stage;
  }

  #takeMatrix() {
    const { variant } = this.state.values;
    const rows = this.data.matrix[variant];
    const { maps, grid, pair } = this.pairMaps;
    return {
      name: `similarity-${variant}`, title: `${this.scene.model}: similarity of blocks, ${variant}, ${this.#stage} stage`,
      panels: [{ label: "all pairs of blocks", canvas: this.matrix.canvas }], scale: this.matrix.scale,
      arrays: {
        similarity: { shape: [rows.length, rows.length], values: Float32Array.from(rows.flat()) },
        ...Object.fromEntries(maps.map((map, side) => [`block_${pair[side]}`, { shape: [grid, grid], values: map.slice(1) }])),
      },
      call: this.#call(this.#stage),
    };
  }

  #takeHeads() {
    const { heads, layers } = this.scene.facts;
    return {
      name: "heads", title: `${this.scene.model}: similarity of heads, ${this.#stage} stage`, panels: this.headTiles.panels, across: 8, scale: this.heads.scale,
      arrays: { heads: { shape: [layers, heads, heads], values: Float32Array.from(this.data.heads.flat(2)) } },
      call: this.#call(this.#stage),
    };
  }

  #takeChart(chart, name, values, stage = this.#stage) {
    const found = values();
    const shape = Array.isArray(found[0]) ? [found.length, found[0].length] : [found.length];
    return { name, title: `${this.scene.model}: ${name.replace("_", " ")}, ${stage} stage`, chart: chart.svg, arrays: { [name]: { shape, values: Float32Array.from(found.flat()) } }, call: this.#call(stage) };
  }
}

/** A step for ticks that people like to count in. */
function roundStep(value) {
  const unit = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 5, 10].map((times) => times * unit).find((step) => step >= value);
}
