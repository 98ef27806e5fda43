// Tokens, slices and reductions on a model of 2 heads and 2 x 2 patches after a class token.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  cellOf,
  isSigned,
  patches,
  queryOf,
  reduce,
  slice,
  token,
  tokenName,
} from "../../service/web/attention.js";

const FACTS = { grid: 2, prefix: 1, distilled: false, mixing: new Map([[1, {}]]) };
const DISTILLED = { ...FACTS, prefix: 2, distilled: true };

test("a query selects a token, inside the grid", () => {
  assert.equal(token("cls", FACTS), 0);
  assert.equal(token("1,0", FACTS), 3);
  assert.equal(token("1,0", DISTILLED), 4);
  assert.equal(token("9,9", FACTS), 4);
});

test("a patch's token has a cell and a query; the others count as the class token", () => {
  for (const facts of [FACTS, DISTILLED])
    for (const query of ["0,0", "0,1", "1,0", "1,1"]) assert.equal(queryOf(token(query, facts), facts), query);
  assert.equal(cellOf(0, FACTS), null);
  assert.equal(queryOf(1, DISTILLED), "cls");
});

test("tokens have names", () => {
  assert.equal(tokenName(0, FACTS), "class token");
  assert.equal(tokenName(1, DISTILLED), "distillation token");
  assert.equal(tokenName(1, { ...DISTILLED, distilled: false }), "extra token 1");
  assert.equal(tokenName(3, FACTS), "row 1, column 0");
});

test("patches are the end of a row", () => {
  assert.deepEqual([...patches(Float32Array.of(9, 1, 2, 3, 4), FACTS)], [1, 2, 3, 4]);
});

test("values are signed only after re-attention, in blocks that have it, unless reduced to magnitudes", () => {
  assert.equal(isSigned(FACTS, "reattention", 1), true);
  assert.equal(isSigned(FACTS, "reattention", 1, "mean"), true);
  assert.equal(isSigned(FACTS, "softmax", 1), false);
  assert.equal(isSigned(FACTS, "reattention", 0), false);
  for (const head of ["max_abs", "rms"]) assert.equal(isSigned(FACTS, "reattention", 1, head), false);
});

test("a slice takes rows from, or columns to, one token of each map", () => {
  const maps = Float32Array.from({ length: 18 }, (_, index) => index); // two maps of 3 x 3
  assert.deepEqual([...slice(maps, 2, 3, 1, "from")], [3, 4, 5, 12, 13, 14]);
  assert.deepEqual([...slice(maps, 2, 3, 1, "to")], [1, 4, 7, 10, 13, 16]);
});

test("heads are reduced as the API reduces them", () => {
  const maps = Float32Array.of(1, -3, 0, /* head 1 */ 3, 1, -4);
  assert.deepEqual([...reduce(maps, 2, "mean")], [2, -1, -2]);
  assert.deepEqual([...reduce(maps, 2, "max")], [3, 1, 0]);
  assert.deepEqual([...reduce(maps, 2, "max_abs")], [3, 3, 4]);
  const rms = [5, 5, 8].map((meanSquare) => Math.fround(Math.sqrt(meanSquare)));
  assert.deepEqual([...reduce(maps, 2, "rms")], rms);
  assert.deepEqual([...reduce(maps, 2, "1")], [3, 1, -4]);
  assert.deepEqual([...reduce(maps, 2, "7")], [3, 1, -4]); // clamped to the last head
});

test("the maximum of negative values is negative", () => {
  assert.deepEqual([...reduce(Float32Array.of(-3, -1), 2, "max")], [-1]);
});
