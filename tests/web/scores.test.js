import assert from "node:assert/strict";
import { test } from "node:test";

import { probabilities, scoresText } from "../../service/web/scores.js";

const close = (found, expected) =>
  found.forEach((value, index) => assert.ok(Math.abs(value - expected[index]) < 1e-12, `${found}`));

test("one right class: probabilities sum to 1, however large logits are", () => {
  close(probabilities([1000, 1000 + Math.log(3)], "softmax"), [0.25, 0.75]);
});

test("each class by itself: a sigmoid of its logit", () => {
  close(probabilities([0, Math.log(3), -Math.log(4), -1000], "sigmoid"), [0.5, 0.75, 0.2, 0]);
  close(probabilities([Math.log(9)], "sigmoid"), [0.9]);
});

test("only probabilities that share nothing are explained", () => {
  assert.equal(scoresText({ scores: "softmax", labels: ["a", "b"] }), "");
  assert.match(scoresText({ scores: "sigmoid", labels: ["a", "b"] }), /do not add up/);
  assert.match(scoresText({ scores: "sigmoid", labels: ["a"] }), /one class/);
});
