// A line chart over blocks or over time, drawn as SVG; hovering or arrow keys read its values.

import { make } from "./dom.js";
import { formatNumber } from "./format.js";
import { makeSelectable } from "./picker.js";
import { axisTicks, labelStride } from "./ticks.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [520, 236, 44, 26, 8, 10];
const NAMED = 18; // more at the top or the bottom for the name of an axis
const MOST_DOTS = 60; // beyond these, only filled points are drawn

export class Chart {
  #at = 0;
  #data = null;

  /** `label` tells screen reader users what the chart shows. */
  constructor(label) {
    this.svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", "aria-hidden": "true" });
    this.readout = make("p", { className: "readout" });
    this.area = make("div", { className: "area" });
    this.area.style.left = `${(100 * LEFT) / WIDTH}%`;
    this.area.style.right = `${(100 * RIGHT) / WIDTH}%`;
    this.legend = make("p", { className: "legend quiet" });
    this.element = make(
      "div",
      { className: "charted" },
      make("div", { className: "chart-box" }, this.svg, this.area),
      this.readout,
      this.legend,
    );
    this.announce = makeSelectable(this.area, {
      label: `${label}: arrow keys read its values`,
      size: () => [1, this.#data.xs.length],
      at: () => [0, this.#at],
      choose: (_, column) => this.#read(column),
      hover: (_, column) => this.#read(column),
      text: () => this.readout.textContent,
    });
  }

  /**
   * Draw series [{ name, values, faint }] over positions with the names xs, between `low` and `high`;
   * NaN is left out. `bands` [{ kind, low, high }] lie behind, with two values for each position.
   * `lines` [{ value, name, side }] are drawn across, with the name at the right or the left side, and
   * points with `filled(value, index)` are filled.
   * `unit` and `axis` name the axes, `labels` is how many positions are labelled at most; `keys`
   * [{ kind, text }] and `legend` explain what is drawn, and `read(index)` puts a position in words.
   * With `growing`, the newest position is read until another is chosen.
   */
  draw({
    xs,
    series,
    low,
    high,
    step = 0.25,
    bands = [],
    lines = [],
    filled = () => false,
    unit = "",
    axis = "block",
    labels = 16,
    keys = [],
    legend = "",
    read = null,
    growing = false,
  }) {
    const atEnd = !this.#data || this.#at === this.#data.xs.length - 1;
    this.#data = { xs, series, read };
    this.#at = growing && atEnd ? xs.length - 1 : Math.min(this.#at, xs.length - 1);
    const top = TOP + (unit ? NAMED : 0);
    const bottom = HEIGHT - BOTTOM - (axis ? NAMED : 0);
    const width = (WIDTH - LEFT - RIGHT) / xs.length;
    const x = (index) => LEFT + (index + 0.5) * width;
    const ticks = axisTicks(low, high, step);
    low = ticks[0];
    const y = (value) => top + (1 - (value - low) / (high - low || 1)) * (bottom - top);
    const parts = bands.map((band) =>
      svg("path", { class: band.kind, d: bandPath(band, (index) => LEFT + index * width, y) }),
    );
    for (const value of ticks)
      parts.push(
        svg("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
        text(LEFT - 6, y(value) + 4, formatNumber(value), "end"),
      );
    const stride = labelStride(xs.length, labels);
    xs.forEach((name, index) => {
      if (index % stride === 0) parts.push(text(x(index), bottom + 18, name, "middle"));
    });
    if (unit) parts.push(text(2, 13, unit, "start"));
    if (axis) parts.push(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, axis, "middle"));
    this.cursor = svg("line", { class: "hair-line", y1: top, y2: bottom });
    parts.push(this.cursor);
    for (const { values, faint, kind = "" } of series) {
      const known = [...values.keys()].filter((index) => !Number.isNaN(values[index]));
      const points = known.map((index) => `${x(index).toFixed(1)},${y(values[index]).toFixed(1)}`).join(" ");
      parts.push(svg("polyline", { class: `${faint ? "line faint" : "line"} ${kind}`, points }));
      if (faint) continue;
      const dense = xs.length > MOST_DOTS;
      for (const index of known) {
        const over = filled(values[index], index);
        if (dense && !over) continue;
        const place = { cx: x(index), cy: y(values[index]), r: dense ? 2 : 3.5 };
        parts.push(svg("circle", { class: `dot ${kind} ${over ? "over" : ""}`, ...place }));
      }
    }
    for (const { value, name, side = "right" } of lines) {
      if (value < low || value > high) continue;
      const [at, anchor] = side === "left" ? [LEFT + 4, "start"] : [WIDTH - RIGHT - 4, "end"];
      parts.push(
        svg("line", { class: "limit", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
        text(at, y(value) + (value < 0 ? 14 : -5), name, anchor, "named"),
      );
    }
    this.svg.replaceChildren(...parts);
    this.x = x;
    this.legend.replaceChildren(...keys.map(keyOf), legend);
    this.#read(this.#at);
    this.announce();
  }

  /** Read a position, as if somebody pointed at it. */
  select(index) {
    this.#read(Math.max(0, index));
    this.announce();
  }

  #read(index) {
    this.#at = index;
    const { xs, series, read } = this.#data;
    this.cursor.setAttribute("x1", this.x(index));
    this.cursor.setAttribute("x2", this.x(index));
    const readings = series
      .filter((one) => !one.faint)
      .map((one) => `${one.name} ${formatNumber(one.values[index])}`);
    const faint = series.filter((one) => one.faint).map((one) => one.values[index]);
    if (faint.length) {
      const range = [Math.min(...faint), Math.max(...faint)].map(formatNumber);
      readings.push(`heads ${range.join(" to ")}`);
    }
    this.readout.textContent = read ? read(index) : `Block ${xs[index]}: ${readings.join(", ")}`;
  }
}

/** A rectangle for each position whose band is known; `left(index)` is where it begins. */
function bandPath({ low, high }, left, y) {
  return [...low.keys()]
    .filter((index) => !Number.isNaN(low[index] + high[index]))
    .map((index) => {
      const [x1, x2] = [left(index), left(index + 1)].map((one) => one.toFixed(1));
      const [y1, y2] = [y(high[index]), y(low[index])].map((one) => one.toFixed(1));
      return `M${x1} ${y1}H${x2}V${y2}H${x1}Z`;
    })
    .join("");
}

/** An entry of the legend: a sample of what is drawn with this class, and what it means. */
function keyOf({ kind, text: words }) {
  const shape = kind.startsWith("band")
    ? svg("rect", { class: kind, width: 20, height: 10 })
    : svg("line", { class: kind, x2: 20, y1: 5, y2: 5 });
  const sample = svg("svg", { class: "sample", viewBox: "0 0 20 10", "aria-hidden": "true" });
  sample.append(shape);
  return make("span", { className: "key" }, sample, words);
}

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(x, y, content, anchor, kind = "") {
  const element = svg("text", { x, y, "text-anchor": anchor, class: kind });
  element.textContent = content;
  return element;
}

const STYLED = [
  "fill",
  "fill-opacity",
  "paint-order",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-opacity",
  "font-size",
  "font-family",
];

/** The chart on a canvas. The page's CSS does not apply there, so computed styles are copied. */
export async function chartCanvas(chart) {
  const copy = chart.cloneNode(true);
  const originals = chart.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((element, index) => {
    const style = getComputedStyle(originals[index]);
    for (const name of STYLED) element.setAttribute(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", 2 * WIDTH);
  copy.setAttribute("height", 2 * HEIGHT);
  const source = new XMLSerializer().serializeToString(copy);
  const picture = new Image();
  picture.src = `data:image/svg+xml,${encodeURIComponent(source)}`;
  await picture.decode();
  const canvas = make("canvas", { width: 2 * WIDTH, height: 2 * HEIGHT });
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas;
}
