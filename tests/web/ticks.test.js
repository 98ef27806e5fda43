import assert from "node:assert/strict";
import { test } from "node:test";

import { axisTicks, colourBarTicks, labelStride, roundStep } from "../../service/web/ticks.js";

for (const [low, high, step, expected] of [
  [0, 1, 0.25, [0, 0.25, 0.5, 0.75, 1]],
  [-0.3, 1, 0.25, [-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1]], // the first one is at or below `low`
  [0, 4.42, 1, [0, 1, 2, 3, 4]],
  [0, 0.3, 0.1, [0, 0.1, 0.2, 0.3]], // 3 * 0.1 is 0.30000000000000004, and 0.3 / 0.1 below 3
  [0, 0, 1, [0]],
])
  test(`an axis from ${low} to ${high} in steps of ${step}`, () => {
    assert.deepEqual(axisTicks(low, high, step), expected);
  });

test("steps are 1, 2 or 5 times a power of ten, and no smaller than asked for", () => {
  const expected = [
    [1, 1],
    [1.2, 2],
    [3, 5],
    [7, 10],
    [30, 50],
    [0.03, 0.05],
    [0.0012, 0.002],
    [0, 1],
  ];
  for (const [value, step] of expected) assert.equal(roundStep(value), step);
});

test("a colour bar is labelled from end to end", () => {
  assert.deepEqual(colourBarTicks({ signed: false, limit: 2 }), [0, 0.5, 1, 1.5, 2]);
  assert.deepEqual(colourBarTicks({ signed: true, limit: 2 }), [-2, -1, 0, 1, 2]);
});

test("labels are left out where there are too many", () => {
  assert.equal(labelStride(16, 16), 1);
  assert.equal(labelStride(17, 16), 2);
  assert.equal(labelStride(64, 20), 4);
  assert.equal(labelStride(0, 16), 1);
});
