// NumPy's npy format for what the API sends: little-endian float32 in C order.

const MAGIC = [0x93, ...new TextEncoder().encode("NUMPY")];
const text = new TextDecoder();

/** { shape, values } of a file's bytes; throws where it is anything else. */
export function readNpy(buffer) {
  const bytes = new Uint8Array(buffer);
  if (MAGIC.some((byte, index) => bytes[index] !== byte)) throw new Error("not an npy file");
  const view = new DataView(buffer);
  const [start, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = text.decode(bytes.subarray(start, start + length));
  const shape = /'shape': \(([^)]*)\)/
    .exec(header)[1]
    .split(",")
    .filter((part) => part.trim())
    .map(Number);
  if (!header.includes("'<f4'") || header.includes("'fortran_order': True"))
    throw new Error(`unexpected npy: ${header}`);
  const offset = start + length;
  const count = shape.reduce((product, side) => product * side, 1);
  const values =
    offset % 4 ? new Float32Array(buffer.slice(offset), 0, count) : new Float32Array(buffer, offset, count);
  return { shape, values };
}

/** The bytes of a file that holds a Float32Array or Uint8Array. */
export function writeNpy({ shape, values }) {
  const kind = values instanceof Uint8Array || values instanceof Uint8ClampedArray ? "|u1" : "<f4";
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const header = `{'descr': '${kind}', 'fortran_order': False, 'shape': (${tuple}), }`;
  const padded = header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11) + "\n";
  const head = new Uint8Array(10 + padded.length);
  head.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8]);
  head.set(new TextEncoder().encode(padded), 10);
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const file = new Uint8Array(head.length + data.length);
  file.set(head);
  file.set(data, head.length);
  return file;
}
