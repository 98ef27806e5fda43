// The Look section: the blocks as a strip, and one of four views of their attention: heads, all blocks
// and heads, the full map, or Theta.

import { patches, queryName, slice } from "./attention.js";
import { make, radios } from "./dom.js";
import { card } from "./download.js";
import { formatNumber, formatPercent } from "./format.js";
import { Grid } from "./grid.js";
import { paint, showBar } from "./paint.js";
import { Raw } from "./raw.js";
import { scaleOf } from "./scale.js";
import { Theta } from "./theta.js";
import { Tiles } from "./tiles.js";

const VIEWS = [
  ["heads", "Heads"],
  ["grid", "All blocks × heads"],
  ["raw", "Raw map"],
  ["theta", "Theta"],
];

export class Views {
  constructor(element, state, session) {
    this.state = state;
    this.session = session;
    this.strip = new Tiles("Θ marks blocks with re-attention", "strip", (layer) => state.set({ layer }));
    this.stripBar = make("div");
    this.headsBar = make("div");
    this.heads = new Tiles("Heads", "heads", (head) => state.set({ head }));
    this.grid = new Grid(state);
    this.raw = new Raw(state);
    this.theta = new Theta();
    this.choice = radios("view", "View", VIEWS, (view) => state.set({ view }));
    this.empty = make(
      "p",
      { className: "quiet" },
      "Rollout combines all heads and blocks into one map. Choose a block to see its heads.",
    );
    element.append(
      card("Blocks", this, () => this.#stripSnapshot(), this.strip.element, this.stripBar),
      card(
        "Details",
        this,
        () => this.#viewSnapshot(),
        this.choice.element,
        this.empty,
        this.heads.element,
        this.headsBar,
        this.grid.element,
        this.raw.element,
        this.theta.element,
      ),
    );
  }

  draw(scene, attention) {
    this.scene = scene;
    const { facts } = scene;
    const { view } = this.state.values;
    this.choice.value = view;
    this.#drawStrip(scene, attention);
    this.empty.hidden = !(scene.rollout && view === "heads");
    this.headsBar.hidden = view !== "heads" || scene.rollout;
    this.heads.element.hidden = view !== "heads" || scene.rollout;
    this.grid.element.hidden = view !== "grid";
    this.raw.element.hidden = view !== "raw";
    this.theta.element.hidden = view !== "theta";
    if (view === "heads" && !scene.rollout) this.#drawHeads(scene);
    if (view === "grid") this.grid.draw(scene);
    const needsBlock = view === "raw" || view === "theta";
    if (!needsBlock) {
      // Load the block last: with it, hovering can preview other queries.
      if (scene.rows && !scene.rollout) attention.block(scene.model, scene.stage, scene.layer);
      return;
    }
    if (view === "raw")
      this.raw.draw(
        scene,
        scene.rollout
          ? attention.rollout(scene.model)
          : attention.block(scene.model, scene.stage, scene.layer),
        this.session.seen(scene.model),
      );
    else
      this.theta.draw(
        scene,
        scene.rollout || !facts.mixing.has(scene.layer)
          ? undefined
          : attention.block(scene.model, scene.stage, scene.layer),
      );
  }

  #drawStrip(scene, attention) {
    const { facts } = scene;
    const blocks = Array.from({ length: facts.layers }, (_, layer) => {
      const mixesHeads = facts.mixing.has(layer);
      return [
        String(layer),
        String(layer),
        `block ${layer}${mixesHeads ? ", with re-attention" : ""}`,
        mixesHeads ? "Θ" : "",
      ];
    });
    this.strip.options = [...blocks, ["rollout", "rollout", "rollout over all blocks, softmax stage", ""]];
    this.strip.value = scene.rollout ? "rollout" : String(scene.layer);
    this.strip.element.setAttribute("aria-busy", String(!scene.rows));
    if (scene.rows)
      for (let layer = 0; layer < facts.layers; layer++) {
        const map = scene.blockMap(layer);
        const scale = scene.scaleOfBlock(layer, map);
        this.strip.draw(String(layer), patches(map, facts), facts.rows, facts.columns, scale, rangeText(scale));
      }
    if (scene.rows)
      this.#showBar(
        this.stripBar,
        scene.scale === "all" && !scene.rollout ? scene.scaleOfBlock(0, scene.blockMap(0)) : null,
        "Attention, range of all blocks",
        "Each block has its own colour range, given below its map.",
      );
    const rollout = attention.peekRollout(scene.model);
    if (!rollout) return this.strip.clear("rollout");
    const map = slice(rollout, 1, facts.tokens, scene.token, scene.direction);
    const scale = scaleOf([map], false, facts.prefix);
    return this.strip.draw("rollout", patches(map, facts), facts.rows, facts.columns, scale, rangeText(scale));
  }

  #drawHeads(scene) {
    const { facts, layer } = scene;
    this.heads.options = Array.from({ length: facts.heads }, (_, head) => [
      String(head),
      `head ${head}`,
      `head ${head} of the block`,
      "",
    ]);
    this.heads.legend = `Heads of block ${layer}: choose one here, or a mean or maximum in the menu above`;
    this.heads.value = scene.head;
    const across = facts.heads > 8 ? Math.ceil(facts.heads / 2) : facts.heads;
    this.heads.list.style.setProperty("--across", Math.round(across / Math.min(1, facts.aspect)));
    this.heads.element.setAttribute("aria-busy", String(!scene.layerRows));
    if (!scene.layerRows) return;
    for (let head = 0; head < facts.heads; head++) {
      const map = scene.layerRows.subarray(head * facts.tokens, (head + 1) * facts.tokens);
      const scale = scene.scaleOfHead(layer, map);
      this.heads.draw(String(head), patches(map, facts), facts.rows, facts.columns, scale, caption(map, facts, scale));
    }
    const scale = scene.scale === "map" ? null : scene.scaleOfHead(layer, scene.layerRows);
    this.#showBar(
      this.headsBar,
      scale,
      `Attention, range of ${scene.scale === "all" ? "all blocks and heads" : `all heads of block ${layer}`}`,
      "Each head has its own colour range, up to its largest magnitude.",
    );
  }

  #showBar(bar, scale, caption, alternative) {
    if (scale) showBar(bar, scale, caption);
    else {
      bar.className = "quiet";
      bar.replaceChildren(alternative);
    }
  }

  #stripSnapshot() {
    const { scene } = this;
    const maps = Array.from({ length: scene.facts.layers }, (_, layer) => scene.blockMap(layer));
    const scale = scene.scale === "all" ? scene.scaleOfBlock(0, maps[0]) : null;
    return {
      name: "blocks",
      title: `${this.#title}, all blocks`,
      across: 8,
      aspect: scene.facts.aspect,
      scale,
      panels: this.strip.panels.slice(0, scene.facts.layers),
      arrays: { maps: { shape: [maps.length, scene.facts.tokens], values: join(maps) } },
      call: this.#call({ layer: "all", head: this.state.values.head }),
    };
  }

  #viewSnapshot() {
    const { scene } = this;
    const { layers, heads, tokens } = scene.facts;
    const { view } = this.state.values;
    const block = `${this.#title}, ${scene.blockText}`;
    if (scene.rollout && view !== "grid") {
      const whole = view === "raw";
      return {
        name: "rollout",
        title: block,
        aspect: whole ? 1 : scene.facts.aspect,
        panels: [{ label: "rollout", canvas: whole ? this.raw.canvas : this.strip.panels.at(-1).canvas }],
        arrays: {
          maps: whole
            ? { shape: [tokens, tokens], values: this.raw.map }
            : { shape: [tokens], values: scene.map },
        },
        call: this.#call({ layer: "rollout", ...(whole ? { query: "all" } : {}) }),
      };
    }
    if (view === "heads")
      return {
        name: `block-${scene.layer}-heads`,
        title: block,
        panels: this.heads.panels,
        across: Math.ceil(heads / 2),
        aspect: scene.facts.aspect,
        scale: scene.scale === "map" ? null : scene.scaleOfHead(scene.layer, scene.layerRows),
        arrays: { maps: { shape: [heads, tokens], values: scene.layerRows } },
        call: this.#call({ layer: scene.layer, head: "all" }),
      };
    if (view === "grid")
      return {
        name: "all-heads",
        title: `${this.#title}: blocks across, heads down`,
        aspect: this.grid.aspect,
        panels: [{ label: `blocks 0 to ${layers - 1}`, canvas: this.grid.canvas }],
        arrays: { maps: { shape: [layers, heads, tokens], values: scene.rows } },
        call: this.#call({ layer: "all", head: "all" }),
      };
    if (view === "raw")
      return {
        name: `block-${scene.layer}-raw`,
        title: `${block}: queries down, keys across`,
        panels: [{ label: scene.head, canvas: this.raw.canvas }],
        scale: this.raw.scale,
        arrays: { maps: { shape: [tokens, tokens], values: this.raw.map } },
        call: this.#call({ layer: scene.layer, head: scene.head, query: "all" }),
      };
    return this.#thetaSnapshot();
  }

  #thetaSnapshot() {
    const { scene } = this;
    const { heads } = scene.facts;
    const mixing = scene.facts.mixing.get(scene.layer) ?? { theta: [], matrix: [], offset: [], row_sum: [] };
    const side = mixing.theta.length;
    const array = (rows) => ({ shape: [side, side], values: Float32Array.from(rows.flat()) });
    const canvas = make("canvas");
    const limit = Math.max(...mixing.theta.flat().map(Math.abs), 1e-9);
    const scale = { signed: true, limit };
    if (side) paint(canvas, Float32Array.from(mixing.theta.flat()), heads, heads, scale);
    return {
      name: `block-${scene.layer}-theta`,
      title: `${scene.model}: Theta of block ${scene.layer} as trained`,
      panels: [{ label: "rows: output heads, columns: input heads", canvas }],
      scale,
      arrays: {
        theta: array(mixing.theta),
        matrix: array(mixing.matrix),
        offset: { shape: [side], values: Float32Array.from(mixing.offset) },
        row_sum: { shape: [side], values: Float32Array.from(mixing.row_sum ?? Array(side).fill(NaN)) },
      },
      call: { path: `models/${scene.model}`, query: {}, json: true },
    };
  }

  get ready() {
    const { scene } = this;
    const { view } = this.state.values;
    if (!scene?.rows || !scene.map) return false;
    return view !== "raw" || Boolean(this.raw.map);
  }

  get #title() {
    const { scene } = this;
    return `${scene.model}, ${scene.stage} stage, ${scene.direction} ${queryName(scene.pinned)}`;
  }

  #call(query) {
    const { scene } = this;
    const { id } = this.session.seen(scene.model);
    return {
      path: "attention-maps",
      query: {
        id,
        model: scene.model,
        query: scene.pinned,
        direction: scene.direction,
        stage: scene.stage,
        ...query,
      },
    };
  }
}

/** The largest value of a patch; where values may be negative, also the sum and signs of all tokens. */
function caption(map, facts, scale) {
  let [most, sum, negative] = [-Infinity, 0, 0];
  map.forEach((value, index) => {
    if (index >= facts.prefix) most = Math.max(most, value);
    sum += value;
    negative += value < 0;
  });
  if (!scale.signed) return `max ${formatNumber(most)}`;
  const share = formatPercent(negative / map.length);
  return `max ${formatNumber(most)}, sum ${formatNumber(sum)}\n${share} negative`;
}

const rangeText = (scale) => (scale.signed ? "±" : "") + formatNumber(scale.limit);

function join(maps) {
  const all = new Float32Array(maps.length * maps[0].length);
  maps.forEach((map, index) => all.set(map, index * map.length));
  return all;
}
