// The Understand section: how similar blocks, heads and features are, by the paper's measures, for one
// model and picture.

import { patches, STAGES } from "./attention.js";
import { Chart } from "./chart.js";
import { make, radios } from "./dom.js";
import { Curves } from "./curves.js";
import { card } from "./download.js";
import { formatNumber } from "./format.js";
import { Matrix } from "./matrix.js";
import { Pair } from "./pair.js";
import {
  CANCELLATION,
  describePairs,
  hasOppositePairs,
  measures,
  similarBlocks,
  similarityScale,
  VARIANTS,
} from "./similarity.js";
import { Tiles } from "./tiles.js";

const SETTLED_MS = 300;

export class Understand {
  #settled = null; // the threshold sent to the server, once the slider has come to rest
  #settling = 0;

  constructor(element, state, shared) {
    this.element = element;
    this.state = state;
    this.shared = shared;
    this.variant = radios(
      "variant",
      "Cosine",
      [
        ["column", "column"],
        ["row", "row"],
        ["centred", "centred"],
      ],
      (variant) => state.set({ variant }),
    );
    this.sentence = make("p", { className: "sentence" });
    this.pair = new Pair(state);
    this.matrix = new Matrix(
      "Similarity of all pairs of blocks",
      (p, q, value) => `Blocks ${p} and ${q}: ${value}`,
      (p, q) => state.set({ pair: `${p},${q}` }),
    );
    this.neighbours = new Chart("Similarity of each block to the previous one");
    this.threshold = make("input", {
      type: "range",
      min: "0.05",
      max: "0.995",
      step: "0.005",
      id: "threshold",
    });
    this.thresholdText = make("output", { htmlFor: "threshold" });
    this.threshold.addEventListener("input", () => state.set({ threshold: Number(this.threshold.value) }));
    this.count = make("p", { className: "count", id: "similar-count" });
    this.pairs = make("p", { className: "quiet", id: "similar-pairs" });

    this.headTiles = new Tiles("All blocks", "small square", (layer) => state.set({ layer }));
    this.heads = new Matrix(
      "Similarity of heads in a block",
      (p, q, value) => `Heads ${p} and ${q}: ${value}`,
    );
    this.features = new Chart("Similarity of each block's features to the last block's");
    this.curves = new Curves();

    element.append(
      card(
        "Similarity of blocks",
        this,
        () => this.#matrixSnapshot(),
        this.variant.element,
        this.sentence,
        make("div", { className: "two" }, this.matrix.element, this.pair.element),
      ),
      card(
        "Neighbouring blocks",
        this,
        () => this.#chartSnapshot(this.neighbours, "neighbours", () => this.data.neighbours.mean),
        make(
          "p",
          {},
          "Similarity of each block to the previous one. A block above the threshold counts as similar.",
        ),
        this.neighbours.element,
        make(
          "label",
          { className: "slide", htmlFor: "threshold" },
          "Threshold ",
          this.threshold,
          this.thresholdText,
        ),
        this.count,
        this.pairs,
      ),
      card(
        "Heads of a block",
        this,
        () => this.#headsSnapshot(),
        make("p", {}, "Column cosine between the heads of one block: low values mean that the heads attend differently."),
        make("div", { className: "two" }, this.heads.element, this.headTiles.element),
      ),
      card(
        "Features",
        this,
        () => this.#chartSnapshot(this.features, "features", () => this.data.features),
        make(
          "p",
          {},
          "Cosine similarity of each block’s output to the last block’s: values near 1 mean that the later blocks change little.",
        ),
        this.features.element,
      ),
      card(
        "Entropy",
        this,
        () => this.#chartSnapshot(this.curves.entropy, "entropy", () => this.soft.entropy, "softmax"),
        make(
          "p",
          {},
          "How spread out attention is, in nats; the line marks uniform attention. Defined before re-attention (softmax stage) only.",
        ),
        this.curves.entropy.element,
      ),
      card(
        "Attention distance",
        this,
        () =>
          this.#chartSnapshot(
            this.curves.distance,
            "attention_distance",
            () => this.soft.attention_distance,
            "softmax",
          ),
        make("p", {}, "Mean distance in input pixels between a query and what it attends to, weighted by attention (softmax stage)."),
        this.curves.distance.element,
      ),
    );
    element.classList.add("cards");
  }

  draw(scene, { loader, session, attention }) {
    const { values } = this.state;
    const { facts } = scene;
    this.scene = scene;
    this.#settle(values.threshold);
    const { stage } = scene;
    const base =
      measures(loader, session, facts.name, stage, this.#settled) ??
      this.#previous(facts.name, stage, session);
    this.data = base;
    if (base) this.kept = { data: base, key: this.#key(facts.name, stage, session) };
    const soft = stage === "softmax" ? base : measures(loader, session, facts.name, "softmax");
    this.soft = soft;
    this.variant.value = values.variant;
    this.sentence.textContent = VARIANTS[values.variant];
    if (base) {
      this.#drawMatrix(base, values, stage);
      this.#drawNeighbours(base, values);
      this.#drawHeads(base, scene, stage);
      const xs = base.features.map((_, layer) => String(layer));
      this.features.draw({
        xs,
        series: [{ name: "to the last block", values: base.features }],
        low: Math.min(0, ...base.features),
        high: 1,
      });
    }
    if (soft) this.curves.draw(soft, facts);
    const rows = attention.rows(scene.model, scene.stage, scene.pinned, scene.direction);
    this.pair.draw(scene, session.seen(scene.model), this.#pairOf(facts.layers), rows);
    this.element.setAttribute("aria-busy", String(!this.ready));
  }

  #settle(threshold) {
    clearTimeout(this.#settling);
    this.#settled ??= threshold;
    if (threshold === this.#settled) return;
    this.#settling = setTimeout(() => {
      this.#settled = threshold;
      this.shared.redraw();
    }, SETTLED_MS);
  }

  #key = (model, stage, session) => [model, stage, session.seen(model).id].join(" ");

  /** The same measures for the last threshold, until the new ones come: only shares of pairs differ. */
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
    const { mean } = base.neighbours;
    const threshold = Number(values.threshold);
    this.threshold.value = threshold;
    this.thresholdText.textContent = threshold.toFixed(3);
    const similar = similarBlocks(mean, threshold);
    this.count.dataset.count = similar.length;
    const which = similar.length ? `: ${similar.join(", ")}` : "";
    this.count.replaceChildren(
      make("strong", {}, `${similar.length} of ${mean.length}`),
      ` blocks are similar to the previous one${which}`,
    );
    const settled = base.similar_blocks.threshold === threshold;
    this.pairs.textContent = settled
      ? `${describePairs(base, "all pairs of head and token are")}. ${hasOppositePairs(base) ? CANCELLATION : ""}`
      : "";
    this.neighbours.draw({
      xs: mean.map((_, index) => String(index + 1)),
      series: [{ name: "to the previous block", values: mean }],
      low: Math.min(0, ...mean),
      high: 1,
      lines: [{ value: threshold, name: `threshold ${formatNumber(threshold)}` }],
      filled: (value) => value > threshold,
      legend: "Filled points are above the threshold.",
    });
  }

  #drawHeads(base, scene, stage) {
    const scale = similarityScale(...base.heads);
    const layer = scene.layer ?? 0;
    const { heads, layers } = scene.facts;
    this.heads.draw(
      base.heads[layer],
      scale,
      `Column cosine between heads of block ${layer}, ${STAGES[stage]} stage`,
    );
    this.headTiles.options = Array.from({ length: layers }, (_, index) => [
      String(index),
      String(index),
      `heads of block ${index}`,
      "",
    ]);
    base.heads.forEach((rows, index) => this.headTiles.draw(String(index), rows.flat(), heads, heads, scale));
    this.headTiles.value = String(layer);
  }

  #call = (stage) => {
    const { id } = this.shared.session.seen(this.scene.model);
    return {
      path: "similarity",
      query: { id, model: this.scene.model, stage, threshold: this.state.values.threshold },
      json: true,
    };
  };

  get ready() {
    return Boolean(this.data && this.soft && this.pair.maps);
  }

  get #stage() {
    return this.data.stage;
  }

  #matrixSnapshot() {
    const { variant } = this.state.values;
    const rows = this.data.matrix[variant];
    const { maps, facts, pair } = this.pair.maps;
    const shape = [facts.rows, facts.columns];
    return {
      name: `similarity-${variant}`,
      title: `${this.scene.model}: similarity of blocks, ${variant}, ${this.#stage} stage`,
      panels: [{ label: "all pairs of blocks", canvas: this.matrix.canvas }],
      scale: this.matrix.scale,
      arrays: {
        similarity: { shape: [rows.length, rows.length], values: Float32Array.from(rows.flat()) },
        ...Object.fromEntries(
          maps.map((map, side) => [`block_${pair[side]}`, { shape, values: patches(map, facts).slice() }]),
        ),
      },
      call: this.#call(this.#stage),
    };
  }

  #headsSnapshot() {
    const { heads, layers } = this.scene.facts;
    return {
      name: "heads",
      title: `${this.scene.model}: similarity of heads, ${this.#stage} stage`,
      panels: this.headTiles.panels,
      across: 8,
      scale: this.heads.scale,
      arrays: {
        heads: { shape: [layers, heads, heads], values: Float32Array.from(this.data.heads.flat(2)) },
      },
      call: this.#call(this.#stage),
    };
  }

  #chartSnapshot(chart, name, values, stage = this.#stage) {
    const found = values();
    const shape = Array.isArray(found[0]) ? [found.length, found[0].length] : [found.length];
    return {
      name,
      title: `${this.scene.model}: ${name.replace("_", " ")}, ${stage} stage`,
      chart: chart.svg,
      arrays: { [name]: { shape, values: Float32Array.from(found.flat()) } },
      call: this.#call(stage),
    };
  }
}
