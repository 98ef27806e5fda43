import assert from "node:assert/strict";
import { test } from "node:test";

import { fromHash, toHash } from "../../service/web/state.js";

const DEFAULTS = fromHash("");

test("defaults are left out of a link", () => {
  assert.equal(toHash(DEFAULTS), "");
  assert.equal(toHash({ ...DEFAULTS, layer: "3", query: "4,7" }), "#layer=3&query=4,7");
});

test("a link restores what was shown", () => {
  const values = { ...DEFAULTS, model: "vit16-cifar10", id: "0a".repeat(16), head: "max_abs", pair: "3,9" };
  assert.deepEqual(fromHash(toHash(values)), values);
});

for (const hash of [
  "#section=admin",
  "#id=0A",
  "#layer=1000",
  "#head=median",
  "#query=1,2,3",
  "#overlay=101",
  "#threshold=2",
  "#model=%3Cscript%3E",
  "#model=" + "a".repeat(201),
  "#unknown=1",
  "#toString=1",
])
  test(`${hash.slice(0, 30)} is ignored`, () => assert.deepEqual(fromHash(hash), DEFAULTS));

test("one malformed value leaves the others", () => {
  assert.deepEqual(fromHash("#layer=x&head=2"), { ...DEFAULTS, head: "2" });
});
