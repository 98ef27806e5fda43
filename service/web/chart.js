// A line chart over blocks, drawn as SVG; hovering or arrow keys read its values.

import { make } from "./dom.js";
import { formatNumber } from "./format.js";
import { makeSelectable } from "./picker.js";
import { axisTicks, labelStride } from "./ticks.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [520, 220, 44, 26, 8, 10];

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
   * Draw series [{ name, values, faint }] over block numbers xs, between `low` and `high`.
   * `line` { value, name } is drawn across; with `above`, points above it are filled.
   */
  draw({ xs, series, low, high, step = 0.25, line = null, above = false, legend = "" }) {
    this.#data = { xs, series };
    this.#at = Math.min(this.#at, xs.length - 1);
    const x = (index) => LEFT + ((index + 0.5) / xs.length) * (WIDTH - LEFT - RIGHT);
    const ticks = axisTicks(low, high, step);
    low = ticks[0];
    const y = (value) => TOP + (1 - (value - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
    const parts = ticks.flatMap((value) => [
      svg("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      text(LEFT - 6, y(value) + 4, formatNumber(value), "end"),
    ]);
    const stride = labelStride(xs.length, 16);
    xs.forEach((name, index) => {
      if (index % stride === 0) parts.push(text(x(index), HEIGHT - 8, name, "middle"));
    });
    this.cursor = svg("line", { class: "hair-line", y1: TOP, y2: HEIGHT - BOTTOM });
    parts.push(this.cursor);
    for (const { values, faint, kind = "" } of series) {
      const points = values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
      parts.push(svg("polyline", { class: `${faint ? "line faint" : "line"} ${kind}`, points }));
      if (!faint)
        values.forEach((value, index) =>
          parts.push(
            svg("circle", {
              class: `dot ${kind} ${above && value > line.value ? "over" : ""}`,
              cx: x(index),
              cy: y(value),
              r: 3.5,
            }),
          ),
        );
    }
    if (line && line.value >= low && line.value <= high)
      parts.push(
        svg("line", { class: "limit", x1: LEFT, x2: WIDTH - RIGHT, y1: y(line.value), y2: y(line.value) }),
        text(WIDTH - RIGHT - 4, y(line.value) - 5, line.name, "end"),
      );
    this.svg.replaceChildren(...parts);
    this.x = x;
    this.legend.textContent = legend;
    this.#read(this.#at);
    this.announce();
  }

  #read(index) {
    this.#at = index;
    const { xs, series } = this.#data;
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
    this.readout.textContent = `Block ${xs[index]}: ${readings.join(", ")}`;
  }
}

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(x, y, content, anchor) {
  const element = svg("text", { x, y, "text-anchor": anchor });
  element.textContent = content;
  return element;
}

const STYLED = [
  "fill",
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
