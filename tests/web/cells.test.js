import assert from "node:assert/strict";
import { test } from "node:test";

import { cellAfterKey, cellAt, cellBox, tileLayout } from "../../service/web/cells.js";

const BOX = { width: 160, height: 60 }; // of 16 columns and 6 rows: cells of 10 by 10

test("a point is in the cell that it lies on", () => {
  assert.deepEqual(cellAt(0, 0, BOX, 6, 16), [0, 0]);
  assert.deepEqual(cellAt(65, 45, BOX, 6, 16), [4, 6]);
  assert.deepEqual(cellAt(69.9, 50, BOX, 6, 16), [5, 6]);
});

test("a point outside, or on the far edge, is in the nearest cell", () => {
  assert.deepEqual(cellAt(160, 60, BOX, 6, 16), [5, 15]);
  assert.deepEqual(cellAt(-3, 500, BOX, 6, 16), [5, 0]);
});

test("arrow keys move by a cell, and stop at the edge", () => {
  assert.deepEqual(cellAfterKey("ArrowUp", [2, 3], 6, 16), [1, 3]);
  assert.deepEqual(cellAfterKey("ArrowDown", [2, 3], 6, 16), [3, 3]);
  assert.deepEqual(cellAfterKey("ArrowLeft", [2, 3], 6, 16), [2, 2]);
  assert.deepEqual(cellAfterKey("ArrowRight", [2, 3], 6, 16), [2, 4]);
  assert.deepEqual(cellAfterKey("ArrowUp", [0, 3], 6, 16), [0, 3]);
  assert.deepEqual(cellAfterKey("ArrowRight", [2, 14], 6, 16, 4), [2, 15]);
  assert.deepEqual(cellAfterKey("ArrowDown", [0, 0], 6, 16, 4), [4, 0]);
});

test("the first arrow key leads to the middle, another key nowhere", () => {
  assert.deepEqual(cellAfterKey("ArrowUp", null, 8, 8), [4, 4]);
  assert.equal(cellAfterKey("Home", [2, 3], 6, 16), null);
  assert.equal(cellAfterKey("a", null, 6, 16), null);
});

test("a cell's box is given in percent", () => {
  assert.deepEqual(cellBox([3, 1], 4, 8), { left: 12.5, top: 75, width: 12.5, height: 25 });
});

test("tiles are laid out row by row with a line between them", () => {
  const { width, height, corner } = tileLayout(96, 8, 8, 16); // 6 heads of 16 blocks, 8 x 8 patches
  assert.deepEqual([width, height], [16 * 9 - 1, 6 * 9 - 1]);
  assert.deepEqual(corner(0), [0, 0]);
  assert.deepEqual(corner(15), [135, 0]);
  assert.deepEqual(corner(16), [0, 9]);
  assert.deepEqual(corner(95), [135, 45]);
});

test("a last row of tiles may be short", () => {
  assert.deepEqual(tileLayout(5, 2, 2, 4).height, 5);
});

test("tiles may have more columns than rows", () => {
  const { width, height, corner } = tileLayout(6, 3, 5, 3);
  assert.deepEqual([width, height], [17, 7]);
  assert.deepEqual(corner(4), [6, 4]);
});
