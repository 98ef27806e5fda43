// Tokens, slices and reductions on a model of 2 heads and 2 x 2 patches after a class token.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  cellOf,
  homeOf,
  isSigned,
  knownQuery,
  patches,
  queryOf,
  reduce,
  slice,
  token,
  tokenName,
} from "../../service/web/attention.js";

const FACTS = { rows: 2, columns: 2, prefix: 1, classToken: true, distilled: false, mixing: new Map([[1, {}]]) };
const DISTILLED = { ...FACTS, prefix: 2, distilled: true };
const WIDE = { ...FACTS, rows: 3, columns: 5 };
const REGISTERS = { ...WIDE, prefix: 2, classToken: false };
const BARE = { ...REGISTERS, prefix: 0 };

test("a query selects a token, inside the grid", () => {
  assert.equal(token("cls", FACTS), 0);
  assert.equal(token("1,0", FACTS), 3);
  assert.equal(token("1,0", DISTILLED), 4);
  assert.equal(token("9,9", FACTS), 4);
  assert.equal(token("2,1", WIDE), 12);
  assert.equal(token("9,9", WIDE), 15);
});

test("without a class token the patch in the middle takes its place", () => {
  for (const [facts, index] of [[REGISTERS, 9], [BARE, 7]]) {
    assert.equal(homeOf(facts), "1,2");
    assert.equal(token("cls", facts), index);
    assert.equal(knownQuery("cls", facts), "1,2");
    assert.equal(knownQuery("9,9", facts), "2,4");
  }
  assert.equal(homeOf(WIDE), "cls");
  assert.equal(knownQuery("cls", WIDE), "cls");
});

test("a patch's token has a cell and a query; the others count as the query that is shown first", () => {
  for (const facts of [FACTS, DISTILLED, WIDE, REGISTERS, BARE])
    for (const query of ["0,0", "0,1", "1,0", "1,1"]) assert.equal(queryOf(token(query, facts), facts), query);
  for (const facts of [WIDE, REGISTERS, BARE]) assert.equal(queryOf(token("2,4", facts), facts), "2,4");
  assert.equal(cellOf(0, FACTS), null);
  assert.deepEqual(cellOf(0, BARE), [0, 0]);
  assert.equal(queryOf(1, DISTILLED), "cls");
  assert.equal(queryOf(0, REGISTERS), "1,2");
});

test("tokens have names", () => {
  assert.equal(tokenName(0, FACTS), "class token");
  assert.equal(tokenName(1, DISTILLED), "distillation token");
  assert.equal(tokenName(1, { ...DISTILLED, distilled: false }), "extra token 1");
  assert.equal(tokenName(3, FACTS), "row 1, column 0");
  assert.equal(tokenName(0, REGISTERS), "register 0");
  assert.equal(tokenName(1, REGISTERS), "register 1");
  assert.equal(tokenName(8, REGISTERS), "row 1, column 1");
  assert.equal(tokenName(0, BARE), "row 0, column 0");
});

test("patches are the end of a row", () => {
  assert.deepEqual([...patches(Float32Array.of(9, 1, 2, 3, 4), FACTS)], [1, 2, 3, 4]);
  const bare = { ...BARE, rows: 1, columns: 3 };
  assert.deepEqual([...patches(Float32Array.of(9, 1, 2), bare)], [9, 1, 2]);
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
