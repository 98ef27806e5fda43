// Draws matrices on canvases at one pixel per value; the browser enlarges them without smoothing.

import { tileLayout } from "./cells.js";
import { DIVERGING, SEQUENTIAL, writeColours } from "./colour.js";
import { make } from "./dom.js";
import { formatNumber } from "./format.js";
import { colourBarTicks, labelStride } from "./ticks.js";

/** Draw values [rows, columns]. */
export function paint(canvas, values, rows, columns, scale) {
  if (canvas.width !== columns) canvas.width = columns;
  if (canvas.height !== rows) canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  writeColours(values, scale, pixels.data);
  context.putImageData(pixels, 0, 0);
}

/** Draw maps [count][rows, columns] as tiles, `across` in a row, separated by a transparent line. */
export function paintTiles(canvas, maps, rows, columns, across, scales) {
  const { width, height, corner } = tileLayout(maps.length, rows, columns, across);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  const tile = context.createImageData(columns, rows);
  maps.forEach((map, index) => {
    writeColours(map, scales[index], tile.data);
    context.putImageData(tile, ...corner(index));
  });
}

/** The picture that the model saw. */
export function paintPicture(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** The colours of a scale as a canvas 256 pixels wide. */
export function ramp(scale) {
  const canvas = make("canvas", { width: 256, height: 1 });
  const table = scale.signed ? DIVERGING : SEQUENTIAL;
  canvas.getContext("2d").putImageData(new ImageData(table.slice(), 256, 1), 0, 0);
  return canvas;
}

/** Number the cells along an axis, leaving some out where the numbers would touch. */
export function numberAxis(element, count) {
  if (element.childElementCount === count) return;
  const stride = labelStride(count, 20);
  element.replaceChildren(
    ...Array.from({ length: count }, (_, index) => make("span", {}, index % stride ? "" : String(index))),
  );
}

/** A colour bar with its ticks; `caption` says what it measures and which range it covers. */
export function showBar(element, scale, caption) {
  const marks = make(
    "div",
    { className: "ticks" },
    ...colourBarTicks(scale).map((value) => make("span", {}, formatNumber(value))),
  );
  const canvas = ramp(scale);
  canvas.setAttribute("aria-hidden", "true");
  const text = scale.signed ? "blue is negative, red positive" : "dark is zero, light is large";
  element.className = "colourbar";
  element.replaceChildren(canvas, marks, make("p", {}, `${caption}; ${text}`));
}
