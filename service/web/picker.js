// Choosing a cell of a drawn grid by hover, click, touch or keyboard.

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * Make `element` choosable. `size()` is [rows, columns]; `at()` the chosen cell or null;
 * `choose(row, column)`, `hover(row, column)`, `leave()` and `home()` are told; `text()` says
 * the choice to people who listen.
 */
export function pick(element, { label, size, at, choose, hover, leave, home, text }) {
  element.tabIndex = 0;
  element.setAttribute("role", "slider");
  element.setAttribute("aria-label", label);
  element.classList.add("pick");

  const cell = (event) => {
    const box = element.getBoundingClientRect();
    const [rows, columns] = size();
    const part = (offset, length, count) =>
      Math.min(count - 1, Math.max(0, Math.floor((offset / length) * count)));
    return [
      part(event.clientY - box.top, box.height, rows),
      part(event.clientX - box.left, box.width, columns),
    ];
  };
  let last = "";
  element.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !hover) return;
    const now = cell(event);
    if (String(now) === last) return;
    last = String(now);
    hover(...now);
  });
  element.addEventListener("pointerleave", () => {
    last = "";
    leave?.();
  });
  element.addEventListener("click", (event) => {
    choose(...cell(event));
    tell();
  });
  element.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (event.key === "Home" && home) home();
    else if (move && !event.altKey && !event.ctrlKey && !event.metaKey) {
      const [rows, columns] = size();
      const step = event.shiftKey ? 4 : 1;
      const from = at() ?? [Math.floor(rows / 2) - move[0], Math.floor(columns / 2) - move[1]];
      const keep = (value, count) => Math.min(count - 1, Math.max(0, value));
      choose(keep(from[0] + step * move[0], rows), keep(from[1] + step * move[1], columns));
    } else return;
    event.preventDefault();
    tell();
  });

  function tell() {
    const [rows, columns] = size();
    const [row, column] = at() ?? [0, 0];
    element.setAttribute("aria-valuemin", "0");
    element.setAttribute("aria-valuemax", String(rows * columns - 1));
    element.setAttribute("aria-valuenow", String(row * columns + column));
    element.setAttribute("aria-valuetext", text());
  }
  return tell;
}

/** Put a marker over a cell of a grid, in percent of it; nowhere without a cell. */
export function place(marker, cell, rows, columns) {
  marker.hidden = !cell;
  if (!cell) return;
  marker.style.left = `${(100 * cell[1]) / columns}%`;
  marker.style.top = `${(100 * cell[0]) / rows}%`;
  marker.style.width = `${100 / columns}%`;
  marker.style.height = `${100 / rows}%`;
}
