// The colour scales, converted back from sRGB to OKLab with the matrices of OKLab's definition.

import assert from "node:assert/strict";
import { test } from "node:test";

import { cssColour, DIVERGING, SEQUENTIAL, writeColours } from "../../service/web/colour.js";

const STEPS = Array.from({ length: 256 }, (_, step) => step);

/** { lightness, chroma, hue in degrees } of a step of a scale. */
function oklch(table, step) {
  const [red, green, blue] = [...table.subarray(4 * step, 4 * step + 3)].map((byte) => {
    const value = byte / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const l = Math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue);
  const m = Math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue);
  const s = Math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue);
  const lightness = 0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s;
  const a = 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s;
  const b = 0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s;
  return {
    lightness,
    chroma: Math.hypot(a, b),
    hue: ((Math.atan2(b, a) * 180) / Math.PI + 360) % 360,
  };
}

const near = (value, expected, tolerance) =>
  assert.ok(Math.abs(value - expected) <= tolerance, `${value} is not ${expected} ± ${tolerance}`);

test("both scales have 256 opaque colours", () => {
  for (const table of [SEQUENTIAL, DIVERGING]) {
    assert.equal(table.length, 4 * 256);
    for (const step of STEPS) assert.equal(table[4 * step + 3], 255);
  }
});

test("the sequential scale grows lighter in even steps, from violet to yellow", () => {
  for (const step of STEPS) near(oklch(SEQUENTIAL, step).lightness, 0.17 + (0.77 * step) / 255, 0.01);
  near(oklch(SEQUENTIAL, 10).hue, 300 - (195 * 10) / 255, 8);
  near(oklch(SEQUENTIAL, 255).hue, 105, 8);
});

test("the diverging scale is near white in its middle and equally dark on both sides", () => {
  for (let step = 0; step < 128; step++) {
    const [negative, positive] = [oklch(DIVERGING, step), oklch(DIVERGING, 255 - step)];
    near(negative.lightness, positive.lightness, 0.015);
    near(negative.lightness, 0.97 - 0.55 * Math.abs((2 * step) / 255 - 1), 0.015);
  }
  near(oklch(DIVERGING, 0).hue, 255, 5);
  near(oklch(DIVERGING, 255).hue, 28, 5);
  for (const step of [127, 128]) assert.ok(oklch(DIVERGING, step).chroma < 0.01);
});

/** Which step of a scale each value gets. */
function stepsOf(values, scale) {
  const rgba = new Uint8ClampedArray(4 * values.length);
  writeColours(values, scale, rgba);
  const table = scale.signed ? DIVERGING : SEQUENTIAL;
  return values.map((_, index) => {
    const colour = String(rgba.subarray(4 * index, 4 * index + 4));
    return STEPS.find((step) => String(table.subarray(4 * step, 4 * step + 4)) === colour);
  });
}

test("values lie on the scale in proportion, and at its end beyond it", () => {
  assert.deepEqual(stepsOf([0, 0.5, 2, 3, -1], { signed: false, limit: 2 }), [0, 64, 255, 255, 0]);
  assert.deepEqual(stepsOf([-2, -9, 2, 9], { signed: true, limit: 2 }), [0, 0, 255, 255]);
  const [below, above] = stepsOf([-0.02, 0.02], { signed: true, limit: 2 });
  assert.deepEqual([below, above], [126, 129]); // symmetric about zero, which is at 127.5
});

test("a limit of zero draws zeros as zeros", () => {
  assert.deepEqual(stepsOf([0, 0], { signed: false, limit: 0 }), [0, 0]);
});

test("ink is white on dark colours and black on light ones", () => {
  const scale = { signed: false, limit: 1 };
  assert.equal(cssColour(0, scale).ink, "#fff");
  assert.equal(cssColour(1, scale).ink, "#000");
  const [red, green, blue] = SEQUENTIAL;
  assert.equal(cssColour(0, scale).fill, `rgb(${red} ${green} ${blue})`);
});

test("what is not a number has no colour", () => {
  const rgba = new Uint8ClampedArray(8);
  writeColours([NaN, 1], { signed: false, limit: 1 }, rgba);
  assert.deepEqual([rgba[3], rgba[7]], [0, 255]);
});
