import assert from "node:assert/strict";
import { test } from "node:test";

import { Cache } from "../../service/web/cache.js";
import { Loader } from "../../service/web/loader.js";

/** A loader whose requests are answered by hand: `requests[key].resolve(value)`. */
function make() {
  const requests = {};
  const loader = new Loader(new Cache(100), () => {});
  const get = (key) =>
    loader.get(key, `value ${key}`, ({ signal, progress }) => {
      const request = { signal, progress };
      const answer = new Promise((resolve, reject) => {
        request.resolve = (value) => resolve({ value, bytes: 1 });
        request.reject = reject;
      });
      requests[key] = request;
      return answer;
    });
  const draw = (...keys) => {
    loader.begin();
    const values = keys.map(get);
    loader.end();
    return values;
  };
  return { loader, requests, draw };
}

/** Let the promises that are settled run on. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

test("what a drawing misses is loaded, one after the other", async () => {
  const { requests, draw } = make();
  assert.deepEqual(draw("a", "b"), [undefined, undefined]);
  assert.deepEqual(Object.keys(requests), ["a"]);
  requests.a.resolve(1);
  await turn();
  assert.deepEqual(draw("a", "b"), [1, undefined]);
  assert.deepEqual(Object.keys(requests), ["a", "b"]);
});

test("a request that no view asks for any more is aborted, and its answer dropped", async () => {
  const { loader, requests, draw } = make();
  draw("a");
  draw("b");
  assert.equal(requests.a.signal.aborted, true);
  assert.equal(loader.active.key, "b");
  requests.a.reject(new Error("aborted"));
  requests.b.resolve(2);
  await turn();
  assert.equal(loader.failure, null);
  assert.deepEqual(draw("b"), [2]);
});

test("after a failure nothing is requested until a retry", async () => {
  const { loader, requests, draw } = make();
  const failure = new Error("busy");
  draw("a", "b");
  requests.a.reject(failure);
  await turn();
  draw("a", "b");
  assert.equal(loader.failure, failure);
  assert.deepEqual([loader.active, Object.keys(requests)], [null, ["a"]]);
  loader.retry();
  delete requests.a;
  draw("a", "b");
  assert.deepEqual(Object.keys(requests), ["a"]);
});

test("a cancelled request is reported as stopped, and the others still load", () => {
  const { loader, requests, draw } = make();
  draw("a", "b");
  loader.cancel();
  assert.equal(requests.a.signal.aborted, true);
  assert.deepEqual(loader.failure, { stopped: true, description: "value a" });
  draw("a", "b");
  assert.equal(loader.active.key, "b");
});

test("progress is that of the active request", () => {
  const { loader, requests, draw } = make();
  draw("a");
  requests.a.progress(3, 9);
  const { loaded, total, description } = loader.active;
  assert.deepEqual({ loaded, total, description }, { loaded: 3, total: 9, description: "value a" });
});
