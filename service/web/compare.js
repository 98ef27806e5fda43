// The Compare section: two models on one picture, with the same block, query, stage and colour scale,
// and how similar their blocks are.

import { homeName, knownQuery, patches, reduce, REDUCTIONS, STAGES } from "./attention.js";
import { make, select, setAspect } from "./dom.js";
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
    this.hint = make("p", { className: "quiet" });
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
            this.hint,
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
    this.hint.textContent = `Select a query here; Home selects ${homeName(scene.facts)}.`;
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
    const queries = [scene.pinned, queryIn(facts[1], scene)];
    this.note.textContent =
      `Block ${layer} of both models, ${STAGES[values.stage]} stage.${differenceText(facts, queries)}`;
    const rows = names.map((name, index) =>
      attention.rows(name, values.stage, queries[index], values.direction),
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
    const compared = this.state.values.scale === "all" ? blocks : maps.map((map) => [map]);
    const shared = scaleOf(
      compared.flatMap((all, side) => all.map((map) => patches(map, facts[side]))),
      !positive && facts.some((_, side) => signed(side, layer)),
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
      }),
    );
    showBar(this.bar, shared, `Attention, ${REDUCTIONS[head] ?? `head ${head}`}, same range for both models`);
    this.drawn = { maps, shared, facts, names, layer, query: scene.pinned };
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
    const { maps, shared, facts, names, layer, query } = this.drawn;
    const { head, direction, stage } = this.state.values;
    return {
      name: "compare",
      title: `Block ${layer}, ${stage} stage: ${names.join(" and ")}`,
      across: 2,
      scale: shared,
      panels: this.sides.map((side, index) => ({
        label: names[index],
        canvas: side.cover,
        behind: side.grey,
        aspect: facts[index].aspect,
        opacity: this.state.values.overlay / 100,
      })),
      arrays: Object.fromEntries(
        maps.map((map, index) => [
          names[index],
          { shape: [facts[index].rows, facts[index].columns], values: patches(map, facts[index]).slice() },
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
    setAspect(this.maps, facts.aspect);
    const [best] = seen.predictions;
    this.answer.textContent = `${best.label}, ${formatNumber(100 * best.probability)}%`;
    paintPicture(this.grey, seen.pixels);
    const map = blocks[layer];
    const { rows, columns } = facts;
    paint(this.cover, patches(map, facts), rows, columns, scale);
    this.cover.style.opacity = opacity;
    this.map = { name: "patch", values: patches(map, facts), rows, columns };
    let [least, most] = [Infinity, -Infinity];
    for (const value of patches(map, facts)) [least, most] = [Math.min(least, value), Math.max(most, value)];
    this.reading.textContent = `Patches: ${formatNumber(least)} to ${formatNumber(most)}`;
    this.strip.options = blocks.map((_, index) => [
      String(index),
      String(index),
      `block ${index} of ${name}`,
      facts.mixing.has(index) ? "Θ" : "",
    ]);
    blocks.forEach((one, index) => this.strip.draw(String(index), patches(one, facts), rows, columns, scale));
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

/** The query of the other model: the patch at the same place of the picture if the grids differ. */
function queryIn(facts, scene) {
  if (scene.pinned === "cls") return knownQuery("cls", facts);
  const [row, column] = scene.pinned.split(",").map(Number);
  const down = Math.floor(((row + 0.5) / scene.facts.rows) * facts.rows);
  const across = Math.floor(((column + 0.5) / scene.facts.columns) * facts.columns);
  return `${down},${across}`;
}

/** Why the second model's query is another one, in words. */
function differenceText([one, other], queries) {
  if (queries[0] === queries[1]) return "";
  if (queries[0] === "cls") return ` ${other.name} has no class token: its query is the patch in the middle.`;
  return ` ${other.name} has ${other.rows} × ${other.columns} patches, and ${one.name} ${one.rows} × ${one.columns}: its query is patch ${queries[1]}, at the same place of what it saw.`;
}
