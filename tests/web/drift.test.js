import assert from "node:assert/strict";
import { test } from "node:test";

import {
  blocksText,
  classBars,
  deviationChart,
  distanceText,
  entryOf,
  historyChart,
  measureOf,
  placeText,
  shareText,
  strongestOf,
  timeLabels,
  timeText,
  valueChart,
  verdictOf,
  windowText,
} from "../../service/web/drift.js";

const REFERENCE = { images: 100, window: 100, threshold: 4, false_alarms: 0.001 };
const MODEL = {
  window: { images: 100, size: 100, since: null },
  reference: REFERENCE,
  drift: 5,
  alarm: true,
};
const ENTRY = {
  measure: "entropy",
  stage: "softmax",
  blocks: [0, 2, 3],
  mean: [1, 2, null],
  spread: [0.1, 0.2, null],
  deviation: [5, -0.5, null],
  reference_mean: [0.1, 2.1, 3],
  reference_spread: [0.2, 0.5, 0.1],
};

for (const [changes, kind] of [
  [{}, "drifted"],
  [{ drift: 3, alarm: false }, "ordinary"],
  [{ drift: null, alarm: null, window: { images: 12, size: 100, since: null } }, "few"],
  [{ drift: null, alarm: null, reference: null }, "no-reference"],
  [{ drift: null, alarm: null, window: { images: 0, size: 100, since: null } }, "unmeasured"],
])
  test(`a model is ${kind}`, () => assert.equal(verdictOf({ ...MODEL, ...changes }).kind, kind));

test("a verdict has its numbers", () => {
  assert.match(verdictOf(MODEL).text, /^Drift is 5, and the threshold 4: /);
  const few = { ...MODEL, drift: null, window: { images: 12, size: 100, since: null } };
  assert.match(verdictOf(few).text, /needs 50 measured images; there are 12/);
});

test("the window is put in words, with the reference if there is one", () => {
  assert.equal(windowText(MODEL), "The newest 100 measured images, compared with 100 of the reference.");
  const since = new Date();
  since.setHours(7, 5);
  const window = { images: 3200, size: 100, since: since.toISOString() };
  const text = windowText({ window, reference: null });
  assert.equal(text, "The newest 3,200 measured images, since 07:05.");
});

test("an entry is found by measure and stage, then by measure, else the first", () => {
  const measures = [
    { measure: "a", stage: "softmax" },
    { measure: "a", stage: "reattention" },
    { measure: "b", stage: "softmax" },
    { measure: "c", stage: null },
  ];
  assert.equal(entryOf(measures, "a", "reattention"), measures[1]);
  assert.equal(entryOf(measures, "b", "reattention"), measures[2]);
  assert.equal(entryOf(measures, "c", "softmax"), measures[3]);
  assert.equal(entryOf(measures, "unknown", "softmax"), measures[0]);
});

test("values are drawn over a band of single images and one of means that are no alarm", () => {
  const { xs, series, bands, keys, filled } = valueChart(ENTRY, MODEL);
  assert.deepEqual(xs, ["0", "2", "3"]);
  assert.deepEqual(series[0].values, [1, 2, NaN]);
  const [images, means] = bands;
  assert.deepEqual(images.low.map((value) => Number(value.toFixed(9))), [0, 1.1, 2.8]); // no entropy below 0
  assert.deepEqual(images.high.map((value) => Number(value.toFixed(9))), [0.5, 3.1, 3.2]);
  assert.ok(Math.abs(means.high[1] - (2.1 + 4 * 0.2)) < 1e-9); // 0.1 is half a standard error
  const still = { ...ENTRY, deviation: [5, 0, null] };
  const [, plain] = valueChart(still, MODEL).bands;
  assert.ok(Math.abs(plain.high[1] - (2.1 + 4 * 0.5 * Math.sqrt(2 / 100))) < 1e-9);
  assert.equal(keys.length, 3);
  assert.deepEqual([0, 1, 2].map((index) => filled(series[0].values[index], index)), [true, false, false]);
});

test("the range has room for values and bands", () => {
  const { low, high, step } = valueChart(ENTRY, MODEL);
  assert.ok(low >= 0 && low <= 0.1 && high > 3.2 && high < 4);
  assert.equal(step, 1);
});

test("cosines are not expected above 1", () => {
  const [band] = valueChart({ ...ENTRY, measure: "similarity.row" }, MODEL).bands;
  assert.deepEqual(band.high.slice(1), [1, 1]);
});

test("without a verdict there is no band for means, without a reference no band and no deviation", () => {
  const few = { ...MODEL, drift: null };
  assert.equal(valueChart(ENTRY, few).bands.length, 1);
  assert.equal(valueChart(ENTRY, few).filled(1, 0), false);
  const bare = { ...ENTRY, deviation: null, reference_mean: null, reference_spread: null };
  const alone = { ...few, reference: null };
  assert.deepEqual(valueChart(bare, alone).bands, []);
  assert.equal(deviationChart(bare, alone), null);
  assert.equal(valueChart(bare, alone).read(1), "Block 2: window 2 ± 0.2");
});

test("what is of no block has one position without a number", () => {
  const confidence = { ...ENTRY, measure: "confidence", stage: null, blocks: [], mean: [0.7], spread: [0.2] };
  Object.assign(confidence, { deviation: [-1], reference_mean: [0.8], reference_spread: [0.2] });
  const chart = valueChart(confidence, MODEL);
  assert.deepEqual(chart.xs, ["all"]);
  assert.equal(chart.axis, "");
  assert.equal(chart.read(0), "window 0.7 ± 0.2, reference 0.8 ± 0.2, deviation \u22121");
});

test("deviations are drawn between both thresholds", () => {
  const { lines, low, high, filled, read } = deviationChart(ENTRY, MODEL);
  assert.deepEqual(lines.map((line) => line.value), [4, -4]);
  assert.ok(high > 5 && low === -high);
  assert.deepEqual([0, 1, 2].map((index) => filled(0, index)), [true, false, false]);
  assert.equal(read(2), "Block 3: window no value ± no value, reference 3 ± 0.1, deviation no value");
});

test("history is drawn up to its largest drift or the threshold, and read with its time", () => {
  const history = [
    { time: "2026-11-29T07:00:00Z", drift: null, images: 10 },
    { time: "2026-11-29T07:10:00Z", drift: 6, images: 1000 },
  ];
  const { series, high, lines, filled, read } = historyChart(history, REFERENCE);
  assert.deepEqual(series[0].values, [NaN, 6]);
  assert.ok(high > 6);
  assert.equal(lines[0].value, 4);
  assert.deepEqual(series[0].values.map(filled), [false, true]);
  assert.match(read(0), /: no drift, over 10 images$/);
  assert.match(read(1), /\d\d:\d\d: drift 6, over 1,000 images$/);
  assert.equal(historyChart([], REFERENCE), null);
  assert.equal(historyChart(history.slice(0, 1), REFERENCE), null);
});

test("the longest bar is the largest deviation, or the threshold where none is beyond", () => {
  const one = { measure: "entropy", stage: "softmax", block: 7, deviation: -2 };
  const two = { measure: "confidence", stage: null, block: null, deviation: 8 };
  assert.deepEqual(
    strongestOf({ ...MODEL, strongest: [two, one] }).map(({ share, beyond }) => [share, beyond]),
    [[1, true], [0.25, false]],
  );
  assert.equal(strongestOf({ ...MODEL, strongest: [one] })[0].share, 0.5);
  const [early] = strongestOf({ ...MODEL, drift: null, strongest: [two] });
  assert.deepEqual([early.share, early.beyond], [1, false]);
  assert.deepEqual(strongestOf({ strongest: [], reference: null, drift: null }), []);
});

test("places are named by measure, stage and block", () => {
  const place = { measure: "entropy", stage: "reattention", block: 0 };
  assert.equal(placeText(place), "Entropy of attention, re-attention, block 0");
  assert.equal(placeText({ ...place, stage: null, block: null }), "Entropy of attention");
  assert.equal(measureOf("new_measure").name, "new_measure");
});

test("shares of classes are lengths of the longest bar or mark", () => {
  const shares = [
    { label: "cat", share: 0.2, reference: 0.4 },
    { label: "dog", share: 0.1, reference: null },
  ];
  const [cat, dog] = classBars({ shares });
  assert.deepEqual([cat.length, cat.mark, dog.length, dog.mark], [0.5, 1, 0.25, null]);
  assert.match(distanceText({ distance: 0.312 }), /^31% of the answers/);
  assert.equal(distanceText({ distance: null }), "");
  assert.equal(shareText(0.012), "1.2%");
});

test("blocks are counted and listed", () => {
  assert.equal(blocksText([3, 4]), "2: 3, 4");
  assert.equal(blocksText([]), "none");
});

test("a time has its date unless it is of today, and labels have dates beyond a day", () => {
  const now = new Date(2026, 10, 29, 20, 0);
  assert.equal(timeText(new Date(2026, 10, 29, 7, 5), now), "07:05");
  assert.equal(timeText(new Date(2026, 10, 28, 23, 59), now), "28 Nov, 23:59");
  const hours = (...list) => list.map((hour) => new Date(2026, 10, 28, hour).toISOString());
  assert.deepEqual(timeLabels(hours(1, 20)), ["01:00", "20:00"]);
  assert.deepEqual(timeLabels(hours(1, 26)), ["28 Nov", "29 Nov"]);
  assert.deepEqual(timeLabels(hours(7, 7)), ["07:00:00", "07:00:00"]);
});
