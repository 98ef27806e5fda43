// The range of values that a colour scale covers.

/** { signed, limit } that covers all the arrays; the first `skip` entries of each do not count. */
export function scaleOf(arrays, signed, skip = 0) {
  let limit = 0;
  for (const values of arrays)
    for (let i = skip; i < values.length; i++) {
      const size = Math.abs(values[i]);
      if (size > limit) limit = size;
    }
  return { signed, limit: limit || 1 };
}
