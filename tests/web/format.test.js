import assert from "node:assert/strict";
import { test } from "node:test";

import { formatMegabytes, formatNumber, formatPercent } from "../../service/web/format.js";

for (const [value, text] of [
  [0, "0"],
  [-0, "0"],
  [1, "1"],
  [0.123456, "0.123"],
  [-0.5, "\u22120.5"],
  [1234.5, "1230"],
  [99_999, "100000"],
  [0.0005, "0.0005"],
  [0.00049, "4.9e-4"],
  [-123_456, "\u22121.2e+5"],
  [NaN, "no value"],
  [undefined, "no value"],
])
  test(`${value} is written ${text}`, () => assert.equal(formatNumber(value), text));

test("shares are written in whole percent", () => {
  assert.equal(formatPercent(0), "0%");
  assert.equal(formatPercent(0.125), "13%");
  assert.equal(formatPercent(1), "100%");
});

test("megabytes have a decimal only while they are few", () => {
  assert.equal(formatMegabytes(150_000), "0.1 MB");
  assert.equal(formatMegabytes(9_940_000), "9.9 MB");
  assert.equal(formatMegabytes(12_600_000), "13 MB");
});
