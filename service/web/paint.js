// Matrices onto canvases, one pixel a value, enlarged by the browser without smoothing.

import { make } from "./dom.js";
import { colours, signed, unsigned } from "./colour.js";
import { number } from "./scale.js";

/** Draw values [rows, columns] at one pixel each. */
export function paint(canvas, values, rows, columns, scale) {
  if (canvas.width !== columns) canvas.width = columns;
  if (canvas.height !== rows) canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  colours(values, scale, pixels.data);
  context.putImageData(pixels, 0, 0);
}

/** Draw maps [count][rows, columns] as tiles with a clear line between; `across` tiles a row. */
export function paintTiles(canvas, maps, side, across, scales) {
  const step = side + 1;
  const [width, height] = [across * step - 1, Math.ceil(maps.length / across) * step - 1];
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  const tile = context.createImageData(side, side);
  maps.forEach((map, index) => {
    colours(map, scales[index], tile.data);
    context.putImageData(tile, (index % across) * step, Math.floor(index / across) * step);
  });
}

/** The picture that the model saw. */
export function paintPicture(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** The scale's colours as a picture 256 wide. */
export function ramp(scale) {
  const canvas = make("canvas", { width: 256, height: 1 });
  const table = scale.signed ? signed : unsigned;
  canvas.getContext("2d").putImageData(new ImageData(table.slice(), 256, 1), 0, 0);
  return canvas;
}

/** Numbers along an axis of cells, fewer where they would touch. */
export function numberAxis(element, count) {
  if (element.childElementCount === count) return;
  const every = Math.ceil(count / 20);
  element.replaceChildren(
    ...Array.from({ length: count }, (_, index) => make("span", {}, index % every ? "" : String(index))),
  );
}

/** Numbers under a colour bar, from its left end to its right one. */
export function ticks(scale) {
  const { signed: both, limit } = scale;
  return (both ? [-1, -0.5, 0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((part) => part * limit);
}

/** A labelled colour bar; `words` say what it measures and whose range it is. */
export function showBar(element, scale, words) {
  const marks = make(
    "div",
    { className: "ticks" },
    ...ticks(scale).map((value) => make("span", {}, number(value))),
  );
  const canvas = ramp(scale);
  canvas.setAttribute("aria-hidden", "true");
  const text = scale.signed ? "blue is negative, red positive" : "dark is zero, light is large";
  element.className = "colourbar";
  element.replaceChildren(canvas, marks, make("p", {}, `${words}; ${text}`));
}
