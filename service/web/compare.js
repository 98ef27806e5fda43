// The Compare section: two models on one picture, with the same block, query, stage and colour scale,
// and how similar their blocks are.

import { patches, reduce, REDUCTIONS, STAGES, token } from "./attention.js";
import { make, select } from "./dom.js";
import { card } from "./download.js";
import { formatNumber } from "./format.js";
import { Matrix } from "./matrix.js";
import { paint, paintPicture, showBar } from "./paint.js";
import { Picture } from "./picture.js";
import { readout, readValues } from "./read.js";
import { scaleOf } from "./scale.js";
import {
  CANCELLATION,
  describePairs,
  hasOppositePairs,
  measures,
  similarBlocks,
  similarityScale,
} from "./similarity.js";
import { Tiles } from "./tiles.js";

export class Compare {
  constructor(element, state, shared) {
    this.state = state;
    this.shared = shared;
    this.other = select("Compare with", (other) => state.set({ other }));
    this.sides = [0, 1].map(() => new Side(state));
    this.picture = new Picture(state);
    this.bar = make("div");
    this.counts = make("table", { className: "counts" });
    this.note = make("p", { className: "quiet" });
    this.verdict = make("p", { className: "sentence" });
    element.append(
      make("div", { className: "row" }, this.other.element, this.note),
      card(
        "Maps, same query and scale",
        this,
        () => this.#mapsSnapshot(),
        make(
          "div",
          { className: "versus three" },
          make(
            "div",
            {},
            make("h3", {}, "What the models saw"),
            make("p", { className: "quiet" }, "Select a query here; Home selects the class token."),
            this.picture.element,
            this.bar,
          ),
          ...this.sides.map((side) => side.maps),
        ),
      ),
      card(
        "How many blocks repeat the previous one?",
        this,
        () => this.#similaritySnapshot(),
        this.verdict,
        make("div", { className: "scroll" }, this.counts),
        make("div", { className: "versus" }, ...this.sides.map((side) => side.similarity)),
      ),
    );
  }

  draw(scene, { loader, session, attention, ensureClassified }) {
    const { values } = this.state;
    this.picture.draw(scene, session.seen(scene.model));
    const models = session.models.map((model) => model.name).filter((name) => name !== values.model);
    this.other.options = models.map((name) => [name, name]);
    if (!models.length) {
      this.note.textContent = "The server has only one model. Export another one to compare.";
      return;
    }
    const other = models.includes(values.other) ? values.other : models[0];
    this.other.value = other;
    const names = [values.model, other];
    if (!ensureClassified(other)) return;
    const facts = names.map((name) => session.facts(name));
    const deepest = Math.min(...facts.map((one) => one.layers)) - 1;
    const layer = Math.min(scene.layer ?? deepest, deepest);
    const same = facts[0].grid === facts[1].grid && facts[0].layers === facts[1].layers;
    const differ = "The models differ in depth or patch grid, so the query is the patch at the same position.";
    this.note.textContent =
      `Block ${layer} of both models, ${STAGES[values.stage]} stage.` + (same ? "" : ` ${differ}`);
    const rows = names.map((name, index) =>
      attention.rows(name, values.stage, queryIn(facts[index], scene), values.direction),
    );
    const stages = Object.fromEntries(
      Object.keys(STAGES).map((stage) => [
        stage,
        names.map((name, index) =>
          measures(loader, session, name, facts[index].mixing.size ? stage : "softmax", values.threshold),
        ),
      ]),
    );
    this.stages = stages;
    this.shown = { names, facts, layer };
    if (rows.every(Boolean)) this.#drawMaps(names, facts, rows, layer, scene, session);
    const found = stages[values.stage];
    if (found.every(Boolean)) {
      const matrices = found.map((one) => one.matrix[values.variant]);
      this.similarityScale = similarityScale(...matrices);
      this.sides.forEach((side, index) =>
        side.drawSimilarity(names[index], matrices[index], this.similarityScale, values),
      );
    }
    this.#drawCounts(names, stages, Number(values.threshold));
  }

  #drawMaps(names, facts, rows, layer, scene, session) {
    const head = facts.every((one) => Number.isNaN(Number(scene.head)) || Number(scene.head) < one.heads)
      ? scene.head
      : "mean";
    const blocks = rows.map((maps, side) =>
      Array.from({ length: facts[side].layers }, (_, index) => {
        const size = facts[side].heads * facts[side].tokens;
        return reduce(maps.subarray(index * size, (index + 1) * size), facts[side].heads, head);
      }),
    );
    const maps = blocks.map((all) => all[layer]);
    const positive = head === "max_abs" || head === "rms";
    const signed = (side, index) =>
      !positive && this.state.values.stage === "reattention" && facts[side].mixing.has(index);
    const shared = scaleOf(
      this.state.values.scale === "all" ? blocks.flat() : maps,
      !positive && facts.some((_, side) => signed(side, layer)),
      Math.max(...facts.map(({ prefix }) => prefix)),
    );
    this.sides.forEach((side, index) =>
      side.drawMaps({
        name: names[index],
        facts: facts[index],
        blocks: blocks[index],
        layer,
        scale: shared,
        opacity: this.state.values.overlay / 100,
        seen: session.seen(names[index]),
        token: token(queryIn(facts[index], scene), facts[index]),
      }),
    );
    showBar(this.bar, shared, `Attention, ${REDUCTIONS[head] ?? `head ${head}`}, same range for both models`);
    this.drawn = { maps, shared, facts, names, layer };
  }

  #drawCounts(names, stages, threshold) {
    const header = make(
      "tr",
      {},
      make("th", { scope: "col" }, `blocks with similarity above ${formatNumber(threshold)}`),
      ...names.map((name) => make("th", { scope: "col" }, name)),
    );
    const counts = {};
    const rows = Object.keys(STAGES).map((stage) => {
      const cells = stages[stage].map((found, index) => {
        if (!found) return make("td", {}, "…");
        const count = similarBlocks(found.neighbours.mean, threshold).length;
        counts[`${stage} ${index}`] = count;
        return make(
          "td",
          { data: { count, stage, model: names[index] } },
          `${count} of ${found.neighbours.mean.length}`,
          make("small", {}, pairsAbove(found, threshold)),
        );
      });
      return make("tr", {}, make("th", { scope: "row" }, STAGES[stage]), ...cells);
    });
    this.counts.replaceChildren(make("thead", {}, header), make("tbody", {}, ...rows));
    const diversified = names.filter(
      (name, index) =>
        `softmax ${index}` in counts && counts[`softmax ${index}`] > counts[`reattention ${index}`],
    );
    const verdict = diversified.length
      ? `${diversified.join(" and ")}: more blocks repeat the previous one in the softmax maps than after re-attention.`
      : "At this threshold, re-attention does not lower the count for this picture. You can change the threshold under Understand.";
    const cancellation = stages.reattention.some((found) => found && hasOppositePairs(found));
    this.verdict.textContent = cancellation ? `${verdict} ${CANCELLATION}` : verdict;
  }

  get ready() {
    return Boolean(this.drawn && this.stages?.[this.state.values.stage].every(Boolean));
  }

  #call(path, query) {
    const { id } = this.shared.session.seen(this.state.values.model);
    return { path, query: { id, model: this.state.values.model, ...query }, json: path === "similarity" };
  }

  #mapsSnapshot() {
    const { maps, shared, facts, names, layer } = this.drawn;
    const { head, query, direction, stage } = this.state.values;
    return {
      name: "compare",
      title: `Block ${layer}, ${stage} stage: ${names.join(" and ")}`,
      across: 2,
      scale: shared,
      panels: this.sides.map((side, index) => ({
        label: names[index],
        canvas: side.cover,
        behind: side.grey,
        opacity: this.state.values.overlay / 100,
      })),
      arrays: Object.fromEntries(
        maps.map((map, index) => [
          names[index],
          { shape: [facts[index].grid, facts[index].grid], values: patches(map, facts[index]).slice() },
        ]),
      ),
      call: this.#call("attention-maps", { layer, head, query, direction, stage }),
    };
  }

  #similaritySnapshot() {
    const { variant, stage, threshold } = this.state.values;
    const found = this.stages[stage];
    return {
      name: "compare-similarity",
      title: `Similarity of blocks, ${variant}, ${stage} stage`,
      across: 2,
      scale: this.similarityScale,
      panels: this.sides.map((side, index) => ({
        label: this.shown.names[index],
        canvas: side.matrix.canvas,
      })),
      arrays: Object.fromEntries(
        found.map((one, index) => [
          this.shown.names[index],
          {
            shape: [one.features.length, one.features.length],
            values: Float32Array.from(one.matrix[variant].flat()),
          },
        ]),
      ),
      call: this.#call("similarity", { stage, threshold }),
    };
  }
}

/** One of the two models. */
class Side {
  constructor(state) {
    this.title = make("h3");
    this.answer = make("p", { className: "quiet" });
    this.grey = make("canvas", { className: "pixels grey" });
    this.cover = make("canvas", { className: "pixels cover" });
    this.reading = make("p", { className: "quiet" });
    this.line = readout();
    readValues(this.cover, () => this.map, this.line);
    this.strip = new Tiles("Blocks", "small", (layer) => state.set({ layer }));
    this.maps = make(
      "div",
      {},
      this.title,
      this.answer,
      make("div", { className: "stack" }, this.grey, this.cover),
      this.line,
      this.reading,
      this.strip.element,
    );
    this.name = make("h3");
    this.matrix = new Matrix(
      "Similarity of blocks",
      (p, q, value) => `Blocks ${p} and ${q}: ${value}`,
      (p, q) => state.set({ pair: `${p},${q}` }),
    );
    this.similarity = make("div", {}, this.name, this.matrix.element);
  }

  drawMaps({ name, facts, blocks, layer, scale, opacity, seen }) {
    this.title.textContent = name;
    const [best] = seen.predictions;
    this.answer.textContent = `${best.label}, ${formatNumber(100 * best.probability)}%`;
    paintPicture(this.grey, seen.pixels);
    const map = blocks[layer];
    paint(this.cover, patches(map, facts), facts.grid, facts.grid, scale);
    this.cover.style.opacity = opacity;
    this.map = { name: "patch", values: patches(map, facts), rows: facts.grid, columns: facts.grid };
    let [least, most] = [Infinity, -Infinity];
    for (const value of patches(map, facts)) [least, most] = [Math.min(least, value), Math.max(most, value)];
    this.reading.textContent = `Patches: ${formatNumber(least)} to ${formatNumber(most)}`;
    this.strip.options = blocks.map((_, index) => [
      String(index),
      String(index),
      `block ${index} of ${name}`,
      facts.mixing.has(index) ? "Θ" : "",
    ]);
    blocks.forEach((one, index) =>
      this.strip.draw(String(index), patches(one, facts), facts.grid, facts.grid, scale),
    );
    this.strip.value = String(layer);
  }

  drawSimilarity(name, rows, scale, { variant, stage, pair }) {
    this.name.textContent = name;
    this.matrix.draw(rows, scale, `Mean cosine, ${variant}, ${STAGES[stage]} stage`);
    this.matrix.at = pair ? pair.split(",").map(Number) : [rows.length - 2, rows.length - 1];
  }
}

/** Empty unless the measures were computed for this threshold. */
const pairsAbove = (found, threshold) =>
  found.similar_blocks.threshold === threshold ? describePairs(found, "pairs") : "";

/** The query in a model's own patch grid: the patch at the same position if the grids differ. */
function queryIn(facts, scene) {
  if (scene.pinned === "cls" || facts.grid === scene.facts.grid) return scene.pinned;
  return scene.pinned
    .split(",")
    .map((part) => Math.floor(((Number(part) + 0.5) / scene.facts.grid) * facts.grid))
    .join(",");
}
