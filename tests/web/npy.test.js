// npy and npz files against those that NumPy and Python's zipfile wrote (make_fixtures.py).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { readNpy, writeNpy } from "../../service/web/npy.js";
import { writeNpz } from "../../service/web/npz.js";

const RAMP = [-0.5, -0.25, 0, 0.25, 0.5, 0.75];

const fixture = (name) => new Uint8Array(readFileSync(new URL(`fixtures/${name}`, import.meta.url)));

/** The file as fetch gives it: a buffer of its own. */
const buffer = (name) => fixture(name).slice().buffer;

for (const [name, shape, values] of [
  ["float32", [2, 3], RAMP],
  ["version_2", [2, 3], RAMP],
  ["vector", [3], RAMP.slice(0, 3)],
  ["scalar", [], [2.5]],
  ["empty", [0, 3], []],
])
  test(`reads ${name}.npy`, () => {
    const found = readNpy(buffer(`${name}.npy`));
    assert.deepEqual(found.shape, shape);
    assert.ok(found.values instanceof Float32Array);
    assert.deepEqual([...found.values], values);
  });

for (const name of ["fortran_order", "float64", "big_endian", "uint8"])
  test(`refuses ${name}.npy, whose values it would misread`, () => {
    assert.throws(() => readNpy(buffer(`${name}.npy`)), /unsupported npy header: \{'descr'/);
  });

test("refuses a file that ends too early", () => {
  const whole = buffer("float32.npy");
  assert.throws(() => readNpy(whole.slice(0, -1)), /truncated npy file: 151 of 152 bytes/);
  assert.throws(() => readNpy(whole.slice(0, 40)), /unsupported npy header/);
  for (const length of [0, 6, 11]) assert.throws(() => readNpy(whole.slice(0, length)), /not an npy file/);
});

test("refuses a file of another kind", () => {
  assert.throws(() => readNpy(new TextEncoder().encode("<!doctype html>").buffer), /not an npy file/);
  assert.throws(() => readNpy(buffer("arrays.npz")), /not an npy file/);
});

test("reads data wherever it begins, at a multiple of four bytes or not", () => {
  for (const padding of ["", " ", "  ", "   "]) {
    const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }${padding}\n`;
    const file = new Uint8Array(10 + header.length + 8);
    file.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length, 0]);
    file.set(new TextEncoder().encode(header), 10);
    new DataView(file.buffer).setFloat32(10 + header.length, 1.5, true);
    new DataView(file.buffer).setFloat32(14 + header.length, -3, true);
    assert.deepEqual([...readNpy(file.buffer).values], [1.5, -3]);
  }
});

test("writes float32 and uint8 byte for byte as NumPy does", () => {
  const float32 = { shape: [2, 3], values: Float32Array.from(RAMP) };
  const vector = { shape: [3], values: float32.values.subarray(0, 3) };
  const uint8 = { shape: [2, 2], values: Uint8Array.of(0, 127, 128, 255) };
  assert.deepEqual(writeNpy(float32), fixture("float32.npy"));
  assert.deepEqual(writeNpy(vector), fixture("vector.npy"));
  assert.deepEqual(writeNpy(uint8), fixture("uint8.npy"));
  assert.deepEqual(writeNpy({ ...uint8, values: Uint8ClampedArray.from(uint8.values) }), fixture("uint8.npy"));
  assert.deepEqual(writeNpy({ shape: [0, 3], values: new Float32Array(0) }), fixture("empty.npy"));
});

test("writes only the part of a buffer that a view covers", () => {
  const middle = Float32Array.from([9, ...RAMP, 9]).subarray(1, 7);
  assert.deepEqual(writeNpy({ shape: [2, 3], values: middle }), fixture("float32.npy"));
});

test("writes npz byte for byte as Python's zipfile does", async () => {
  const file = writeNpz({
    float32: { shape: [2, 3], values: Float32Array.from(RAMP) },
    uint8: { shape: [2, 2], values: Uint8Array.of(0, 127, 128, 255) },
  });
  assert.equal(file.type, "application/x-npz");
  assert.deepEqual(new Uint8Array(await file.arrayBuffer()), fixture("arrays.npz"));
});

test("an npz of nothing is an empty zip archive", async () => {
  const bytes = new Uint8Array(await writeNpz({}).arrayBuffer());
  assert.deepEqual([...bytes], [0x50, 0x4b, 5, 6, ...Array(18).fill(0)]);
});
