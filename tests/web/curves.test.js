import assert from "node:assert/strict";
import { test } from "node:test";

import { distanceChart, entropyChart } from "../../service/web/curves.js";

const TABLE = [
  [1, 3],
  [2, 2],
  [0, 4],
]; // three blocks of two heads

test("a chart has a faint line for each head, and their mean", () => {
  for (const chart of [entropyChart(TABLE, 65), distanceChart(TABLE)]) {
    assert.deepEqual(chart.xs, ["0", "1", "2"]);
    assert.deepEqual(chart.series, [
      { name: "head 0", values: [1, 2, 0], faint: true },
      { name: "head 1", values: [3, 2, 4], faint: true },
      { name: "mean of heads", values: [2, 2, 2] },
    ]);
    assert.equal(chart.low, 0);
  }
});

test("entropy is drawn up to a line at the entropy of uniform attention", () => {
  const { lines: [line], high, step } = entropyChart(TABLE, 65);
  assert.ok(Math.abs(line.value - 4.174387) < 1e-6); // ln 65
  assert.equal(line.name, "uniform: 4.17");
  assert.ok(high > line.value);
  assert.equal(step, 1);
});

test("distance is drawn up to the farthest head, in about four round steps", () => {
  const { high, step } = distanceChart([[3, 13], [7, 11]]);
  assert.ok(high > 13 && high < 14);
  assert.equal(step, 5);
});
