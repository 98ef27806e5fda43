// Geometry of a grid of equal cells drawn in a box: which cell a point is in, where an arrow key
// leads, and where a cell lies. Knows nothing of elements or events.

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const clamp = (value, count) => Math.min(count - 1, Math.max(0, value));

/** [row, column] of the cell at `x`, `y` in a box of `width` by `height`; outside, the nearest one. */
export function cellAt(x, y, { width, height }, rows, columns) {
  return [clamp(Math.floor((y / height) * rows), rows), clamp(Math.floor((x / width) * columns), columns)];
}

/**
 * The cell that an arrow key leads to from `cell`, or from nowhere to the middle of the grid;
 * null for any other key. A `stride` above 1 skips cells; the edge stops it.
 */
export function cellAfterKey(key, cell, rows, columns, stride = 1) {
  const arrow = ARROWS[key];
  if (!arrow) return null;
  if (!cell) return [Math.floor(rows / 2), Math.floor(columns / 2)];
  return [clamp(cell[0] + stride * arrow[0], rows), clamp(cell[1] + stride * arrow[1], columns)];
}

/** Where a cell lies in its grid, in percent of the grid's sides. */
export function cellBox([row, column], rows, columns) {
  return {
    left: (100 * column) / columns,
    top: (100 * row) / rows,
    width: 100 / columns,
    height: 100 / rows,
  };
}

/** Pixels of `count` tiles, `across` in a row, with one clear pixel between neighbours. */
export function tileLayout(count, rows, columns, across) {
  const [down, right] = [rows + 1, columns + 1];
  return {
    width: across * right - 1,
    height: Math.ceil(count / across) * down - 1,
    corner: (index) => [(index % across) * right, Math.floor(index / across) * down], // x, y
  };
}
