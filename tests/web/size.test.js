import assert from "node:assert/strict";
import { test } from "node:test";

import { sameSize, sizeOf, sizeText } from "../../service/web/size.js";

test("a square is one number, any other size height and width", () => {
  assert.deepEqual(sizeOf(224), { height: 224, width: 224 });
  assert.deepEqual(sizeOf([144, 256]), { height: 144, width: 256 });
});

test("sizes are the same if both sides are", () => {
  assert.equal(sameSize(sizeOf([8, 16]), sizeOf([8, 16])), true);
  assert.equal(sameSize(sizeOf([8, 16]), sizeOf([16, 8])), false);
  assert.equal(sameSize(sizeOf([8, 16]), sizeOf(8)), false);
});

test("the sides are named where they differ", () => {
  assert.equal(sizeText(sizeOf(224)), "224 \u00d7 224 px");
  assert.equal(sizeText(sizeOf([144, 256])), "144 \u00d7 256 px (height \u00d7 width)");
});
