// NumPy's npz file format: a zip archive of npy files, stored without compression.

import { writeNpy } from "./npy.js";

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** An npz file, as a Blob, of arrays { shape, values } by name. */
export function writeNpz(arrays) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [name, array] of Object.entries(arrays)) {
    const data = writeNpy(array);
    const path = new TextEncoder().encode(`${name}.npy`);
    // Version, flags, method, time, date (1980-01-01), CRC, both sizes, lengths of name and extra field.
    const properties = record(
      [2, 20],
      [2, 0],
      [2, 0],
      [2, 0],
      [2, 33],
      [4, crc32(data)],
      [4, data.length],
      [4, data.length],
      [2, path.length],
      [2, 0],
    );
    const entry = [record([4, 0x04034b50]), properties, path, data];
    directory.push(
      record([4, 0x02014b50], [2, 20]),
      properties,
      record([2, 0], [2, 0], [2, 0], [4, 0], [4, offset]),
      path,
    );
    parts.push(...entry);
    offset += size(entry);
  }
  const count = Object.keys(arrays).length;
  const end = record(
    [4, 0x06054b50],
    [2, 0],
    [2, 0],
    [2, count],
    [2, count],
    [4, size(directory)],
    [4, offset],
    [2, 0],
  );
  return new Blob([...parts, ...directory, end], { type: "application/x-npz" });
}

/** Integers [bytes, value], each in 2 or 4 bytes, little-endian. */
function record(...fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [bytes, value] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

const size = (parts) => parts.reduce((sum, part) => sum + part.length, 0);
