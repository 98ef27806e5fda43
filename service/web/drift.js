// What a monitored model's numbers mean: a verdict in words, and what its charts draw. Knows neither
// elements nor requests.

import { STAGES } from "./attention.js";
import { formatNumber, formatPercent } from "./format.js";
import { roundStep } from "./ticks.js";

export const LEAST = 50; // measured images that a verdict needs, as on the server
const SPREADS = 2; // on either side of the mean, of the band of single images
const MOST_LABELS = 6; // along the time axis
const DAY_MS = 86_400_000;
const MINUTES_MS = 600_000; // ten

const MEASURES = {
  "similarity.column": { name: "Column cosine to the previous block", unit: "cosine", most: 1 },
  "similarity.row": { name: "Row cosine to the previous block", unit: "cosine", most: 1 },
  "similarity.centred": { name: "Centred cosine to the previous block", unit: "cosine", most: 1 },
  entropy: { name: "Entropy of attention", unit: "nats", least: 0 },
  attention_distance: { name: "Attention distance", unit: "px", least: 0 },
  feature_similarity: { name: "Similarity of features to the last block’s", unit: "cosine", most: 1 },
  confidence: { name: "Confidence of the answer", unit: "probability", least: 0, most: 1 },
};

/** What is known of a measure by its name in the API. */
export const measureOf = (measure) => MEASURES[measure] ?? { name: measure, unit: "" };

/** { kind, title, text }: how a model fares, in words. */
export function verdictOf(model) {
  const { window, reference, drift, alarm } = model;
  if (!window.images)
    return {
      kind: "unmeasured",
      title: "Nothing measured yet",
      text: "No image of this model has been measured since the server started.",
    };
  if (!reference)
    return {
      kind: "no-reference",
      title: "No reference",
      text: "The model’s export does not say what is normal of it, so its measures are shown without a verdict.",
    };
  if (drift === null)
    return {
      kind: "few",
      title: "Too few images",
      text: `A verdict needs ${LEAST} measured images; there are ${window.images}.`,
    };
  const numbers = `Drift is ${formatNumber(drift)}, and the threshold ${formatNumber(reference.threshold)}`;
  return alarm
    ? {
        kind: "drifted",
        title: "Drifted",
        text: `${numbers}: these images differ from the reference, or the model’s inside does. See the strongest deviations.`,
      }
    : {
        kind: "ordinary",
        title: "Ordinary",
        text: `${numbers}: the window does not differ from the reference beyond chance.`,
      };
}

/** What the verdict stands on, in words. */
export function windowText({ window, reference }) {
  const against = reference ? `, compared with ${count(reference.images)} of the reference` : "";
  const since = window.since ? `, since ${timeText(window.since)}` : "";
  return `The newest ${count(window.images)} measured images${since}${against}.`;
}

/** The entry of a measure and stage; another stage or measure, if the model has no such one. */
export function entryOf(measures, measure, stage) {
  const same = measures.filter((one) => one.measure === measure);
  return same.find((one) => one.stage === stage) ?? same[0] ?? measures[0];
}

/** A measure of each block, with the bands of single images and of means that are no alarm. */
export function valueChart(entry, model) {
  const { name, unit, least = -Infinity, most = Infinity } = measureOf(entry.measure);
  const values = numbers(entry.mean);
  const bands = [];
  const keys = [{ kind: "line", text: "mean of the window" }];
  if (entry.reference_mean) {
    const [means, spreads] = [entry.reference_mean, entry.reference_spread].map(numbers);
    const band = (kind, halves) => ({
      kind,
      low: means.map((mean, index) => Math.max(least, mean - halves[index])),
      high: means.map((mean, index) => Math.min(most, mean + halves[index])),
    });
    bands.push(band("band", spreads.map((spread) => SPREADS * spread)));
    keys.push({ kind: "band", text: `reference: mean ± ${SPREADS} spreads of single images` });
    if (model.drift !== null) {
      bands.push(band("band inner", tolerances(entry, model)));
      keys.push({ kind: "band inner", text: "means that are no alarm" });
    }
  }
  const beyond = beyondThreshold(entry, model);
  return {
    ...positions(entry),
    ...rangeOf([values, ...bands.flatMap(({ low, high }) => [low, high])]),
    series: [{ name, values }],
    bands,
    keys,
    unit,
    filled: (_, index) => beyond[index],
    read: (index) => reading(entry, index),
  };
}

/**
 * How far the mean of each block may be from the reference without an alarm: a deviation says what one
 * standard error is; where it is 0, that of a signal without heavy tails is taken.
 */
function tolerances({ mean, deviation, reference_mean, reference_spread }, { window, reference }) {
  const root = Math.sqrt(1 / window.images + 1 / reference.images);
  return mean.map((value, index) => {
    const error = deviation[index]
      ? (value - reference_mean[index]) / deviation[index]
      : (reference_spread[index] ?? NaN) * root;
    return reference.threshold * Math.abs(error);
  });
}

/** The deviations of a measure's blocks between the thresholds, or null without a reference. */
export function deviationChart(entry, model) {
  if (!entry.deviation || !model.reference) return null;
  const values = numbers(entry.deviation);
  const { threshold } = model.reference;
  const most = Math.max(threshold, ...values.filter((one) => !Number.isNaN(one)).map(Math.abs)) * 1.2;
  const beyond = beyondThreshold(entry, model);
  return {
    ...positions(entry),
    series: [{ name: "deviation", values }],
    low: -most,
    high: most,
    step: roundStep(most / 3),
    lines: [
      { value: threshold, name: `threshold ${formatNumber(threshold)}` },
      { value: -threshold, name: formatNumber(-threshold) },
    ],
    unit: "standard errors",
    filled: (_, index) => beyond[index],
    legend: "Filled points are beyond the threshold.",
    read: (index) => reading(entry, index),
  };
}

/** Drift over time, oldest first, or null if there is none. */
export function historyChart(history, reference) {
  if (history.every((one) => one.drift === null)) return null;
  const values = history.map((one) => one.drift ?? NaN);
  const threshold = reference?.threshold ?? Infinity;
  const known = [...values, threshold].filter(Number.isFinite);
  const high = Math.max(0, ...known) * 1.15 || 1;
  return {
    xs: timeLabels(history.map((one) => one.time)),
    series: [{ name: "drift", values }],
    low: 0,
    high,
    step: roundStep(high / 6),
    lines: reference ? [{ value: threshold, name: `threshold ${formatNumber(threshold)}`, side: "left" }] : [],
    filled: (value) => value > threshold,
    unit: "drift",
    axis: "time",
    labels: MOST_LABELS,
    growing: true,
    read: (index) => {
      const { time, images, drift } = history[index];
      const what = drift === null ? "no drift" : `drift ${formatNumber(drift)}`;
      return `${timeText(time)}: ${what}, over ${count(images)} images`;
    },
  };
}

/** The strongest deviations: { text, share, beyond, ... } with the share of the longest bar. */
export function strongestOf({ strongest, reference, drift }) {
  const threshold = drift === null ? Infinity : reference.threshold;
  const sizes = strongest.map((one) => Math.abs(one.deviation));
  const longest = Math.max(...sizes, Number.isFinite(threshold) ? threshold : 0) || 1;
  return strongest.map((one, index) => ({
    ...one,
    text: placeText(one),
    share: sizes[index] / longest,
    beyond: sizes[index] > threshold,
  }));
}

/** "Entropy of attention, softmax, block 7". */
export function placeText({ measure, stage, block }) {
  const where = [stage && STAGES[stage], Number.isInteger(block) && `block ${block}`];
  return [measureOf(measure).name, ...where.filter(Boolean)].join(", ");
}

/** Shares of classes: { label, share, reference } with both as lengths of the longest bar. */
export function classBars({ shares }) {
  const longest = Math.max(...shares.flatMap((one) => [one.share, one.reference ?? 0]), 1e-9);
  return shares.map((one) => ({
    ...one,
    length: one.share / longest,
    mark: one.reference === null ? null : one.reference / longest,
  }));
}

/** The distance of the class shares in words, or nothing without a reference. */
export const distanceText = ({ distance }) =>
  distance === null
    ? ""
    : `${formatPercent(distance)} of the answers would have to name another class for the shares to be those of the reference.`;

export const blocksText = (blocks) => (blocks.length ? `${blocks.length}: ${blocks.join(", ")}` : "none");

/** Times of day, with seconds within a few minutes; dates where the times are over a day apart. */
export function timeLabels(times) {
  const dates = times.map((time) => new Date(time));
  const span = dates.at(-1) - dates[0];
  if (span > DAY_MS) return dates.map(dayOf);
  return dates.map(span < MINUTES_MS ? (date) => date.toLocaleTimeString("en-GB") : timeOfDay);
}

/** A time of day in the reader's time zone, with the date if it is not today. */
export function timeText(time, now = new Date()) {
  const date = new Date(time);
  const today = date.toDateString() === now.toDateString();
  return `${today ? "" : `${dayOf(date)}, `}${timeOfDay(date)}`;
}

const dayOf = (date) => date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
const timeOfDay = (date) => date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

/** A share of 1 in percent, with three significant digits. */
export const shareText = (share) => `${formatNumber(100 * share)}%`;

/** A whole number with commas between thousands. */
export const count = (value) => value.toLocaleString("en-US");

/** Names of a measure's positions: its blocks, or the one of what is not of a block. */
const positions = ({ blocks }) =>
  blocks.length ? { xs: blocks.map(String), axis: "block" } : { xs: ["all"], axis: "" };

function reading(entry, index) {
  const { blocks, mean, spread, reference_mean, reference_spread, deviation } = entry;
  const where = blocks.length ? `Block ${blocks[index]}: ` : "";
  const parts = [`window ${plusMinus(mean, spread, index)}`];
  if (reference_mean) parts.push(`reference ${plusMinus(reference_mean, reference_spread, index)}`);
  if (deviation) parts.push(`deviation ${formatNumber(numbers(deviation)[index])}`);
  return where + parts.join(", ");
}

const plusMinus = (means, spreads, index) =>
  `${formatNumber(numbers(means)[index])} ± ${formatNumber(numbers(spreads)[index])}`;

function beyondThreshold({ deviation, mean }, { reference, drift }) {
  if (!deviation || drift === null) return mean.map(() => false);
  return deviation.map((one) => Math.abs(one ?? 0) > reference.threshold);
}

/** { low, high, step } around all values, for about four steps. */
function rangeOf(arrays) {
  const known = arrays.flat().filter((value) => !Number.isNaN(value));
  const [least, most] = [Math.min(...known), Math.max(...known)];
  if (!known.length) return { low: 0, high: 1, step: 0.25 };
  const margin = (most - least || Math.abs(most) || 1) * 0.06;
  const step = roundStep((most - least + 2 * margin) / 4);
  return { low: least < 0 ? least - margin : Math.max(0, least - margin), high: most + margin, step };
}

/** JSON has null for what is not a number. */
const numbers = (values) => values.map((value) => value ?? NaN);
