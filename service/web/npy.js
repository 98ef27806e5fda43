// NumPy's npy file format, as far as the page needs it: it reads what the API sends, float32 in
// little-endian C order, and writes float32 and uint8.

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // "\x93NUMPY"

/** { shape, values } from a file's bytes; throws for any other kind of file. */
export function readNpy(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes.length < 12 || MAGIC.some((byte, index) => bytes[index] !== byte))
    throw new Error("not an npy file");
  const view = new DataView(buffer);
  const [start, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  const shape = /'shape': \(([\d, ]*)\)/.exec(header)?.[1].split(",").filter((part) => part.trim());
  if (!shape || !header.includes("'descr': '<f4'") || !header.includes("'fortran_order': False"))
    throw new Error(`unsupported npy header: ${header.trim()}`);
  const sides = shape.map(Number);
  const count = sides.reduce((product, side) => product * side, 1);
  const offset = start + length;
  if (bytes.length < offset + 4 * count)
    throw new Error(`truncated npy file: ${bytes.length} of ${offset + 4 * count} bytes`);
  const aligned = offset % 4 === 0; // a Float32Array can only begin at a multiple of 4
  const values = aligned
    ? new Float32Array(buffer, offset, count)
    : new Float32Array(buffer.slice(offset), 0, count);
  return { shape: sides, values };
}

/** The bytes of a file that holds a Float32Array or Uint8Array in this shape. */
export function writeNpy({ shape, values }) {
  const type = values instanceof Uint8Array || values instanceof Uint8ClampedArray ? "|u1" : "<f4";
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const header = `{'descr': '${type}', 'fortran_order': False, 'shape': (${tuple}), }`;
  // Spaces and a newline let the data begin at a multiple of 64 bytes.
  const padded = header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11) + "\n";
  const preamble = [...MAGIC, 1, 0, padded.length & 255, padded.length >> 8];
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const file = new Uint8Array(preamble.length + padded.length + data.length);
  file.set(preamble);
  file.set(new TextEncoder().encode(padded), preamble.length);
  file.set(data, preamble.length + padded.length);
  return file;
}
