// The picture that the model saw beside the selected map, with the map's most telling numbers.

import {
  cellOf,
  homeName,
  patches,
  queryName,
  REDUCTIONS,
  STAGES,
  token,
  tokenName,
} from "./attention.js";
import { cssColour } from "./colour.js";
import { byId, make, say } from "./dom.js";
import { formatNumber, formatPercent } from "./format.js";
import { paint, paintPicture, showBar } from "./paint.js";
import { makeSelectable, placeMarker } from "./picker.js";
import { extremes } from "./scene.js";
import { sizeText } from "./size.js";

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
      size: () => this.#grid,
      // Not the scene's query: keys may be pressed faster than frames are drawn.
      at: () => cellOf(token(state.values.query, this.#scene.facts), this.#scene.facts),
      choose: (row, column) => state.set({ query: `${row},${column}` }),
      home: () => state.set({ query: "cls" }),
      homeName: () => homeName(this.#scene.facts),
      text: () => this.#sentence(),
    };
    this.#announcers = [
      makeSelectable(byId("crop"), {
        ...shared,
        label: "Query patch on the picture: arrow keys move it",
        hover: (row, column) => preview(`${row},${column}`),
        leave: () => preview(null),
      }),
      makeSelectable(byId("overlay"), {
        ...shared,
        label: "Query patch on the map: arrow keys move it",
        hover: (row, column) => this.point(token(`${row},${column}`, this.#scene.facts)),
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
    byId("seen-size").textContent = `${sizeText(facts.size)}, ${facts.rows} × ${facts.columns} patches`;
    byId("home-name").textContent = homeName(facts);
    this.#place(this.query, scene.token);
    this.#place(this.source, scene.token);
    byId("map-title").textContent =
      `${scene.rollout ? "Rollout" : `Block ${scene.layer}`}, ${STAGES[scene.stage]}`;
    const who = queryName(scene.query);
    const heads = scene.rollout ? "" : `, ${REDUCTIONS[scene.head] ?? `head ${scene.head}`}`;
    byId("map-what").textContent =
      `${scene.direction === "from" ? `what ${who} attends to` : `what attends to ${who}`}${heads}`;
    byId("map").setAttribute("aria-busy", String(!map));
    if (!map) return;
    this.scale = scene.scaleOfBlock(scene.layer, map);
    paint(this.map, patches(map, facts), ...this.#grid, this.scale);
    this.map.style.opacity = this.#state.values.overlay / 100;
    showBar(byId("map-bar"), this.scale, `Attention, ${scene.rangeText}`);
    const { strongest, weakest } = extremes(map, facts.prefix);
    this.#place(this.strong, strongest);
    this.#place(this.weak, map[weakest] < 0 ? weakest : null);
    this.classToken.hidden = !facts.classToken;
    if (facts.classToken) this.#drawClassToken(map[0]);
    this.point(null);
    if (!scene.preview) this.#announce();
  }

  /** Show the value at a token, or with null the strongest patch. */
  point(token) {
    const { facts, map, stage, direction } = this.#scene;
    if (!map) return;
    const { strongest, weakest } = extremes(map, facts.prefix);
    const rows = [["Query", tokenName(this.#scene.token, facts)]];
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

  /** Rows and columns of patches. */
  get #grid() {
    return [this.#scene.facts.rows, this.#scene.facts.columns];
  }

  /** Lay a marker over a token's patch; hide it for null and for a token that is not a patch. */
  #place(marker, index) {
    placeMarker(marker, index === null ? null : cellOf(index, this.#scene.facts), ...this.#grid);
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
    const { facts, map } = this.#scene;
    const who = `Query: ${tokenName(this.#scene.token, facts)}`;
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
