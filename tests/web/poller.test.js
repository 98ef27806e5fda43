import assert from "node:assert/strict";
import { test } from "node:test";

import { Poller } from "../../service/web/poller.js";

/** A poller whose answers the test gives, one by one, and what it asked for. */
function polled(waitMs = () => 0) {
  const asked = [];
  let changed;
  const poller = new Poller(
    (key, signal) =>
      new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        asked.push({ key, signal, resolve, reject });
        changed?.();
      }),
    () => changed?.(),
    waitMs,
  );
  /** Resolves when `condition` holds after a request or an answer. */
  const until = (condition) =>
    new Promise((resolve) => {
      changed = () => condition() && resolve();
      changed();
    });
  return { poller, asked, until };
}

test("asks again after each answer while something is wanted", async () => {
  const { poller, asked, until } = polled();
  poller.want("a");
  asked[0].resolve(1);
  await until(() => asked.length === 2);
  assert.equal(poller.value, 1);
  assert.ok(poller.at instanceof Date);
  asked[1].resolve(2);
  await until(() => asked.length === 3);
  assert.equal(poller.value, 2);
  assert.deepEqual(new Set(asked.map((one) => one.key)), new Set(["a"]));
  poller.want(null);
});

test("wanting nothing aborts the request and keeps the answer", async () => {
  const { poller, asked, until } = polled();
  poller.want("a");
  asked[0].resolve(1);
  await until(() => asked.length === 2);
  poller.want(null);
  assert.ok(asked[1].signal.aborted);
  assert.equal(poller.value, 1);
  poller.want("a");
  assert.equal(asked.length, 3);
  assert.equal(poller.value, 1);
  poller.want(null);
});

test("another key forgets the answer, and one that comes late is not taken", async () => {
  const { poller, asked, until } = polled();
  poller.want("a");
  asked[0].resolve(1);
  await until(() => asked.length === 2);
  poller.want("b");
  assert.equal(poller.value, null);
  asked[1].resolve("late");
  asked[2].resolve("b's");
  await until(() => poller.value !== null);
  assert.equal(poller.value, "b's");
  poller.want(null);
});

test("a failure keeps the answer before it, and ends with the next one", async () => {
  const { poller, asked, until } = polled();
  poller.want("a");
  asked[0].resolve(1);
  await until(() => asked.length === 2);
  asked[1].reject(new Error("away"));
  await until(() => asked.length === 3);
  assert.equal(poller.error.message, "away");
  assert.equal(poller.value, 1);
  asked[2].resolve(2);
  await until(() => asked.length === 4);
  assert.equal(poller.error, null);
  poller.want(null);
});

test("waits for retry() where a failure says so", async () => {
  const waits = [];
  const { poller, asked, until } = polled((error) => {
    waits.push(error?.message ?? null);
    return error ? Infinity : 0;
  });
  poller.want("a");
  asked[0].reject(new Error("no key"));
  await until(() => poller.error);
  assert.equal(asked.length, 1);
  poller.retry();
  assert.equal(asked.length, 2);
  asked[1].resolve(1);
  await until(() => asked.length === 3);
  assert.deepEqual(waits, ["no key", null]);
  poller.want(null);
  poller.retry();
  assert.equal(asked.length, 3);
});
