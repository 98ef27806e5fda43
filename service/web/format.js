// How numbers are written for people.

/** Three significant digits, with a real minus sign. */
export function formatNumber(value) {
  if (value === undefined || Number.isNaN(value)) return "no value";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 0.0005 || size >= 1e5 ? size.toExponential(1) : String(Number(size.toPrecision(3)));
  return (value < 0 ? "\u2212" : "") + text;
}

/** A share of 1 in whole percent. */
export const formatPercent = (share) => `${Math.round(100 * share)}%`;

export const formatMegabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
