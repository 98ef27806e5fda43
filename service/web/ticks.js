// Which numbers stand along an axis or a colour bar.

/** Multiples of `step` from the one at or below `low` up to `high`. */
export function axisTicks(low, high, step) {
  const first = Math.floor(low / step);
  const count = Math.floor(high / step - first + 1e-3) + 1; // tolerates rounding errors in high / step
  return Array.from({ length: Math.max(1, count) }, (_, index) => rounded((first + index) * step));
}

/** The smallest step of 1, 2 or 5 times a power of ten that is at least `value`. */
export function roundStep(value) {
  const unit = 10 ** Math.floor(Math.log10(value || 1));
  return rounded([1, 2, 5, 10].map((times) => times * unit).find((step) => step >= value));
}

/** Five values from the left end of a colour bar to its right end. */
export function colourBarTicks({ signed, limit }) {
  return (signed ? [-1, -0.5, 0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((part) => part * limit);
}

/** The n for which labelling every n-th of `count` positions gives at most `most` labels. */
export const labelStride = (count, most) => Math.max(1, Math.ceil(count / most));

/** Remove the error of binary fractions: 0.30000000000000004 becomes 0.3. */
const rounded = (value) => Number(value.toPrecision(12));
