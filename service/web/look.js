// The picture that the model saw beside the selected map, with the map's most telling numbers.

import { patches, queryOf, REDUCTIONS, STAGES, tokenName } from "./attention.js";
import { cssColour } from "./colour.js";
import { byId, make, say } from "./dom.js";
import { formatNumber, formatPercent } from "./format.js";
import { paint, paintPicture, showBar } from "./paint.js";
import { makeSelectable, placeMarker } from "./picker.js";
import { extremes } from "./scene.js";

export class Look {
  #state;
  #scene;
  #said = "";
  #announcers = [];

  /** `preview(query)` shows another query while the pointer is over it; null ends the preview. */
  constructor(state, preview) {
    this.#state = state;
    this.crop = make("canvas", { className: "pixels" });
    this.query = make("span", { className: "marker query" });
    byId("crop").append(this.crop, this.query);
    this.grey = make("canvas", { className: "pixels grey" });
    this.map = make("canvas", { className: "pixels cover" });
    this.strong = make("span", { className: "marker strong" });
    this.weak = make("span", { className: "marker weak" });
    this.source = make("span", { className: "marker query" });
    byId("overlay").append(this.grey, this.map, this.source, this.strong, this.weak);
    this.classToken = make("p", { className: "class-token" });
    byId("map").append(this.classToken);

    const shared = {
      size: () => [this.#scene.facts.grid, this.#scene.facts.grid],
      at: () => cell(state.values.query), // not the scene's: keys may be pressed faster than frames are drawn
      choose: (row, column) => state.set({ query: `${row},${column}` }),
      home: () => state.set({ query: "cls" }),
      text: () => this.#sentence(),
    };
    this.#announcers = [
      makeSelectable(byId("crop"), {
        ...shared,
        label: "Query patch on the picture: arrow keys move it, Home selects the class token",
        hover: (row, column) => preview(`${row},${column}`),
        leave: () => preview(null),
      }),
      makeSelectable(byId("overlay"), {
        ...shared,
        label: "Query patch on the map: arrow keys move it, Home selects the class token",
        hover: (row, column) => this.point(this.#scene.facts.prefix + row * this.#scene.facts.grid + column),
        leave: () => this.point(null),
      }),
    ];
    for (const id of ["crop", "overlay"])
      byId(id).addEventListener("keydown", (event) => {
        const step = { "[": -1, "]": 1 }[event.key];
        if (!step || this.#scene.rollout) return;
        const { facts } = this.#scene;
        const layer = Number(state.values.layer || facts.layers - 1) + step;
        if (layer >= 0 && layer < facts.layers) state.set({ layer });
      });
  }

  draw(scene, seen) {
    this.#scene = scene;
    const { facts, map } = scene;
    if (this.pixels !== seen.pixels) {
      paintPicture(this.crop, seen.pixels);
      paintPicture(this.grey, seen.pixels);
      this.pixels = seen.pixels;
    }
    byId("seen-size").textContent = `${facts.size} × ${facts.size} px, ${facts.grid} × ${facts.grid} patches`;
    placeMarker(this.query, cell(scene.query), facts.grid, facts.grid);
    placeMarker(this.source, cell(scene.query), facts.grid, facts.grid);
    byId("map-title").textContent =
      `${scene.rollout ? "Rollout" : `Block ${scene.layer}`}, ${STAGES[scene.stage]}`;
    const who = scene.query === "cls" ? "the class token" : `patch ${scene.query}`;
    const heads = scene.rollout ? "" : `, ${REDUCTIONS[scene.head] ?? `head ${scene.head}`}`;
    byId("map-what").textContent =
      `${scene.direction === "from" ? `what ${who} attends to` : `what attends to ${who}`}${heads}`;
    byId("map").setAttribute("aria-busy", String(!map));
    if (!map) return;
    this.scale = scene.scaleOfBlock(scene.layer, map);
    paint(this.map, patches(map, facts), facts.grid, facts.grid, this.scale);
    this.map.style.opacity = this.#state.values.overlay / 100;
    showBar(byId("map-bar"), this.scale, `Attention, ${scene.rangeText}`);
    const { strongest, weakest } = extremes(map, facts.prefix);
    placeMarker(this.strong, cell(queryOf(strongest, facts)), facts.grid, facts.grid);
    placeMarker(this.weak, map[weakest] < 0 ? cell(queryOf(weakest, facts)) : null, facts.grid, facts.grid);
    this.#drawClassToken(map[0]);
    this.point(null);
    if (!scene.preview) this.#announce();
  }

  /** Show the value at a token, or with null the strongest patch. */
  point(token) {
    const { facts, map, stage, direction } = this.#scene;
    if (!map) return;
    const { strongest, weakest } = extremes(map, facts.prefix);
    const rows = [
      ["Query", this.#scene.query === "cls" ? "class token" : tokenName(this.#scene.token, facts)],
    ];
    if (token !== null)
      rows.push(["Under the pointer", `${formatNumber(map[token])} at ${tokenName(token, facts)}`, map[token]]);
    else
      rows.push([
        "Strongest patch",
        `${formatNumber(map[strongest])} at ${tokenName(strongest, facts)}`,
        map[strongest],
      ]);
    if (map[weakest] < 0)
      rows.push(["Most negative", `${formatNumber(map[weakest])} at ${tokenName(weakest, facts)}`, map[weakest]]);
    for (let index = 0; index < facts.prefix; index++)
      rows.push([capital(tokenName(index, facts)), formatNumber(map[index]), map[index]]);
    const sum = map.reduce((total, value) => total + value, 0);
    rows.push([direction === "from" ? "Row sum" : "Column sum", formatNumber(sum), sum]);
    if (this.#scene.layer > facts.donor) rows.push(["Softmax map", `reused from block ${facts.donor}`]);
    if (stage === "reattention" && facts.mixing.has(this.#scene.layer))
      rows.push(["Negative entries", formatPercent(map.filter((value) => value < 0).length / map.length)]);
    byId("reading").replaceChildren(
      ...rows.flatMap(([name, text, value]) => [
        make("dt", {}, name),
        make("dd", { data: value === undefined ? { name } : { name, value } }, text),
      ]),
    );
  }

  #drawClassToken(value) {
    const { fill, ink } = cssColour(value, this.scale);
    const swatch = make("span", { className: "swatch" }, formatNumber(value));
    swatch.style.background = fill;
    swatch.style.color = ink;
    const note =
      Math.abs(value) > this.scale.limit ? "; beyond the colour range, which covers patches only" : "";
    this.classToken.replaceChildren(swatch, ` class token, shown separately${note}`);
  }

  #sentence() {
    const { facts, map, query } = this.#scene;
    const who = query === "cls" ? "Query: class token" : `Query: ${tokenName(this.#scene.token, facts)}`;
    if (!map) return `${who}; loading`;
    const { strongest } = extremes(map, facts.prefix);
    const best = `${tokenName(strongest, facts)}, ${formatNumber(map[strongest])}`;
    return `${who}; ${this.#scene.blockText}, ${this.#scene.stage}; strongest: ${best}`;
  }

  #announce() {
    for (const announce of this.#announcers) announce();
    const sentence = this.#sentence();
    if (sentence !== this.#said) say(sentence);
    this.#said = sentence;
  }
}

const capital = (words) => words[0].toUpperCase() + words.slice(1);

/** [row, column] of a query, or null for the class token. */
export const cell = (query) => (query === "cls" ? null : query.split(",").map(Number));
