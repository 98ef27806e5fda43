// Lets people select a cell of a drawn grid by mouse, touch or keyboard.

import { cellAfterKey, cellAt, cellBox } from "./cells.js";

/**
 * Make the cells of `element` selectable. `size()` returns [rows, columns] and `at()` the selected
 * cell or null. The callbacks are `choose(row, column)`, `hover(row, column)`, `leave()` and
 * `home()` (the Home key), which selects what `homeName()` says. `text()` describes the selection to
 * screen readers; the returned function announces it again after a change from elsewhere.
 */
export function makeSelectable(element, { label, size, at, choose, hover, leave, home, homeName, text }) {
  element.tabIndex = 0;
  element.setAttribute("role", "slider");
  element.setAttribute("aria-label", label);
  element.classList.add("pick");

  const cellUnder = (event) => {
    const box = element.getBoundingClientRect();
    return cellAt(event.clientX - box.left, event.clientY - box.top, box, ...size());
  };
  let last = "";
  element.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !hover) return;
    const cell = cellUnder(event);
    if (String(cell) === last) return;
    last = String(cell);
    hover(...cell);
  });
  element.addEventListener("pointerleave", () => {
    last = "";
    leave?.();
  });
  element.addEventListener("click", (event) => {
    choose(...cellUnder(event));
    announce();
  });
  element.addEventListener("keydown", (event) => {
    const cell = cellAfterKey(event.key, at(), ...size(), event.shiftKey ? 4 : 1);
    if (event.key === "Home" && home) home();
    else if (cell && !event.altKey && !event.ctrlKey && !event.metaKey) choose(...cell);
    else return;
    event.preventDefault();
    announce();
  });

  function announce() {
    const [rows, columns] = size();
    const [row, column] = at() ?? [0, 0];
    if (home) element.setAttribute("aria-label", `${label}, Home selects ${homeName()}`);
    element.setAttribute("aria-valuemin", "0");
    element.setAttribute("aria-valuemax", String(rows * columns - 1));
    element.setAttribute("aria-valuenow", String(row * columns + column));
    element.setAttribute("aria-valuetext", text());
  }
  return announce;
}

/** Lay a marker over a cell of a grid; hide it where there is no cell. */
export function placeMarker(marker, cell, rows, columns) {
  marker.hidden = !cell;
  if (!cell) return;
  for (const [side, share] of Object.entries(cellBox(cell, rows, columns))) marker.style[side] = `${share}%`;
}
