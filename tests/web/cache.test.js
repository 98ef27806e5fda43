import assert from "node:assert/strict";
import { test } from "node:test";

import { Cache } from "../../service/web/cache.js";

/** Which of the keys are kept, without using them. */
function filled(maxBytes, entries) {
  const cache = new Cache(maxBytes);
  for (const [key, bytes] of entries) cache.put(key, key.toUpperCase(), bytes);
  return cache;
}

test("what was put in is found, and nothing else", () => {
  const cache = filled(10, [["a", 1]]);
  assert.equal(cache.get("a"), "A");
  assert.equal(cache.get("b"), undefined);
});

test("the oldest entries make room, as few as will do", () => {
  const cache = filled(10, [["a", 4], ["b", 3], ["c", 3], ["d", 4]]);
  assert.equal(cache.get("a"), undefined);
  for (const key of ["b", "c", "d"]) assert.equal(cache.get(key), key.toUpperCase());
});

test("an entry that was used is younger than one that was not", () => {
  const cache = filled(10, [["a", 4], ["b", 4]]);
  cache.get("a");
  cache.put("c", "C", 4);
  assert.equal(cache.get("a"), "A");
  assert.equal(cache.get("b"), undefined);
});

test("a value put in again replaces the first and its bytes", () => {
  const cache = filled(10, [["a", 9], ["b", 1]]);
  cache.put("a", "new", 2);
  cache.put("c", "C", 7); // 2 + 1 + 7 bytes: all fit
  assert.deepEqual([cache.get("a"), cache.get("b"), cache.get("c")], ["new", "B", "C"]);
});

test("a value larger than the cache is kept alone, until the next one", () => {
  const cache = filled(10, [["a", 4], ["large", 50]]);
  assert.equal(cache.get("a"), undefined);
  assert.equal(cache.get("large"), "LARGE");
  cache.put("b", "B", 1);
  assert.equal(cache.get("large"), undefined);
  assert.equal(cache.get("b"), "B");
});

test("falsy values count as kept", () => {
  const cache = new Cache(10);
  cache.put("zero", 0, 1);
  assert.equal(cache.get("zero"), 0);
});
