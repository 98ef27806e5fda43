// A scene of one block and two heads over a class token and 2 x 2 patches.

import assert from "node:assert/strict";
import { test } from "node:test";

import { extremes, Scene } from "../../service/web/scene.js";

const FACTS = {
  name: "m",
  layers: 1,
  heads: 2,
  rows: 2,
  columns: 2,
  prefix: 1,
  classToken: true,
  tokens: 5,
  mixing: new Map([[0, {}]]),
};
const ROWS = Float32Array.of(9, 1, 2, -4, 0, /* head 1 */ 9, 3, 0, 2, 8);
const VALUES = { layer: "", head: "mean", query: "cls", direction: "from", stage: "reattention", scale: "block" };

const scene = (changes, attention = { rows: () => ROWS }) =>
  new Scene(attention, FACTS, { ...VALUES, ...changes });

test("without a block the last one is shown, reduced over its heads", () => {
  const shown = scene({});
  assert.equal(shown.layer, 0);
  assert.deepEqual([...shown.map], [9, 2, 1, -1, 4]);
});

test("blocks, heads and queries that this model lacks are brought into it", () => {
  const shown = scene({ layer: "31", head: "11", query: "13,13" });
  assert.deepEqual([shown.layer, shown.head, shown.query], [0, "mean", "1,1"]);
});

test("colour scales cover patches only, and what was chosen", () => {
  const one = scene({ head: "0" });
  assert.deepEqual(one.scaleOfBlock(0, one.map), { signed: true, limit: 8 }); // all heads
  assert.deepEqual(one.scaleOfHead(0, one.map), { signed: true, limit: 8 });
  const single = scene({ head: "0", scale: "map" });
  assert.equal(single.scaleOfBlock(0, single.map).limit, 4);
  assert.equal(single.scaleOfHead(0, single.map).limit, 4);
  const magnitude = scene({ head: "max_abs" });
  assert.equal(magnitude.scaleOfBlock(0, magnitude.map).signed, false);
});

test("a model without re-attention is shown at the softmax stage", () => {
  const shown = new Scene({ rows: () => ROWS }, { ...FACTS, mixing: new Map() }, VALUES);
  assert.equal(shown.stage, "softmax");
  assert.equal(shown.signed(0), false);
});

test("a model without a class token is shown for the patch in the middle, and its first patch counts", () => {
  const facts = { ...FACTS, prefix: 0, classToken: false, rows: 1, columns: 5 };
  const shown = new Scene({ rows: () => ROWS }, facts, VALUES);
  assert.deepEqual([shown.pinned, shown.token], ["0,2", 2]);
  assert.equal(shown.scaleOfBlock(0, shown.map).limit, 9);
});

test("nothing is shown until rows are loaded", () => {
  const shown = scene({}, { rows: () => undefined });
  assert.equal(shown.map, undefined);
});

test("extremes are those of the patches", () => {
  assert.deepEqual(extremes(Float32Array.of(9, 1, 2, -4, 0), 1), { strongest: 2, weakest: 3 });
  assert.deepEqual(extremes(Float32Array.of(-9, 5, 5), 1), { strongest: 1, weakest: 1 });
  assert.deepEqual(extremes(Float32Array.of(-9, 5, 5), 0), { strongest: 1, weakest: 0 });
});
