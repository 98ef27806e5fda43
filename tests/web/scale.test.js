import assert from "node:assert/strict";
import { test } from "node:test";

import { scaleOf } from "../../service/web/scale.js";

test("a scale reaches to the largest magnitude of all arrays", () => {
  const arrays = [Float32Array.of(0.25, -0.75), Float32Array.of(0.5)];
  assert.deepEqual(scaleOf(arrays, true), { signed: true, limit: 0.75 });
});

test("the tokens before the patches do not count", () => {
  const arrays = [Float32Array.of(9, 0.25, 0.5), Float32Array.of(-7, 0.125, 0.25)];
  assert.deepEqual(scaleOf(arrays, false, 1), { signed: false, limit: 0.5 });
  assert.equal(scaleOf(arrays, false, 0).limit, 9);
});

test("zeros, nothing and NaN have a limit that can be divided by", () => {
  for (const values of [[0, 0], [], [NaN]]) assert.equal(scaleOf([values], false).limit, 1);
  assert.equal(scaleOf([[NaN, 0.5]], false).limit, 0.5);
});
