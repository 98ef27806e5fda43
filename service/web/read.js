// Shows the value under the mouse pointer as text. Keyboard and screen reader users get the same
// values from the selectable grids of picker.js.

import { cellAt } from "./cells.js";
import { make } from "./dom.js";
import { formatNumber } from "./format.js";

/** A line of text for `readValues` to write to. */
export const readout = () => make("p", { className: "readout", aria: { hidden: "true" } });

/**
 * Write the value of a drawn map under the pointer to `line`. `map()` returns
 * { name, values, rows, columns }, or null while nothing is drawn. Give `target` where another
 * element covers the canvas and receives its events.
 */
export function readValues(target, map, line, canvas = target) {
  target.addEventListener("pointermove", (event) => {
    const drawn = map();
    if (!drawn) return;
    const { name, values, rows, columns } = drawn;
    const box = canvas.getBoundingClientRect();
    const [row, column] = cellAt(event.clientX - box.left, event.clientY - box.top, box, rows, columns);
    const value = formatNumber(values[row * columns + column]);
    line.textContent = `${name}, row ${row}, column ${column}: ${value}`;
  });
  target.addEventListener("pointerleave", () => {
    line.textContent = "";
  });
}
