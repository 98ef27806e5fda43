// The range that colours stand for, and how numbers are written.

/** { signed, limit } that holds every given array; entries before `skip` do not count. */
export function scaleOf(arrays, signedMap, skip = 0) {
  let limit = 0;
  for (const values of arrays)
    for (let i = skip; i < values.length; i++) {
      const size = Math.abs(values[i]);
      if (size > limit) limit = size;
    }
  return { signed: signedMap, limit: limit || 1 };
}

/** Three significant digits, with a real minus sign. */
export function number(value) {
  if (value === undefined || Number.isNaN(value)) return "no value";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 0.0005 || size >= 1e5 ? size.toExponential(1) : String(Number(size.toPrecision(3)));
  return (value < 0 ? "\u2212" : "") + text;
}

export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
