import assert from "node:assert/strict";
import { test } from "node:test";

import {
  defined,
  describePairs,
  hasOppositePairs,
  similarBlocks,
  similarityScale,
} from "../../service/web/similarity.js";

const found = (above, below, threshold = 0.9) => ({
  neighbours: { above_threshold: above, below_negative: below },
  similar_blocks: { threshold },
});

test("similar blocks are above the threshold, not at it, and counted from block 1", () => {
  assert.deepEqual(similarBlocks([0.95, 0.9, 0.2, 0.91], 0.9), [1, 4]);
  assert.deepEqual(similarBlocks([], 0.9), []);
});

test("pairs are described by their mean shares", () => {
  assert.equal(describePairs(found([0.1, 0.3], [0, 0]), "pairs"), "20% of pairs above 0.9");
  assert.equal(
    describePairs(found([0.1, 0.3], [0.25, 0.75], 0.5), "pairs"),
    "20% of pairs above 0.5, 50% below \u22120.5",
  );
});

test("opposite pairs count from the share that rounds to 1%", () => {
  assert.equal(hasOppositePairs(found([1], [0.0049])), false);
  assert.equal(hasOppositePairs(found([1], [0.005])), true);
  assert.equal(hasOppositePairs(found([], [])), false);
});

test("similarities are drawn up to 1, with a sign only if one is negative", () => {
  assert.deepEqual(similarityScale([[1, 0.2], [0.2, 1]]), { signed: false, limit: 1 });
  assert.deepEqual(similarityScale([[1]], [[1, -0.1], [-0.1, 1]]), { signed: true, limit: 1 });
});

test("what is not defined is null in JSON, and not a number here", () => {
  const { matrix, heads } = defined({ heads: [1], matrix: { column: [[1, 0.5]], centred: [[1, null]] } });
  assert.deepEqual(matrix, { column: [[1, 0.5]], centred: [[1, NaN]] });
  assert.deepEqual(heads, [1]);
  assert.equal(similarityScale(matrix.centred).signed, false);
});
