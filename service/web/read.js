// Values under the pointer, written out; keyboards and screen readers have the controls that are made to be chosen.

import { make } from "./dom.js";
import { number } from "./scale.js";

/** A line that `readValues` writes to. */
export const readout = () => make("p", { className: "readout", aria: { hidden: "true" } });

/**
 * Write the value of a drawn map under the pointer; `map()` is
 * { name, values, rows, columns } or nothing. `target` gets the events of a canvas that it covers.
 */
export function readValues(target, map, line, canvas = target) {
  target.addEventListener("pointermove", (event) => {
    const drawn = map();
    if (!drawn) return;
    const { name, values, rows, columns } = drawn;
    const box = canvas.getBoundingClientRect();
    const part = (offset, length, count) =>
      Math.min(count - 1, Math.max(0, Math.floor((offset / length) * count)));
    const row = part(event.clientY - box.top, box.height, rows);
    const column = part(event.clientX - box.left, box.width, columns);
    line.textContent = `${name}, row ${row}, column ${column}: ${number(values[row * columns + column])}`;
  });
  target.addEventListener("pointerleave", () => {
    line.textContent = "";
  });
}
