// The measures of /similarity: loading them, and what is counted and said about them.

import * as api from "./api.js";
import { STAGES } from "./attention.js";
import { formatNumber, formatPercent } from "./format.js";

export const VARIANTS = {
  column:
    "Cosine over queries, the paper’s Eq. 2: can tell whether a token contributes alike to every output; cannot tell which tokens are attended when all queries attend alike.",
  row: "Cosine over keys: can tell whether a token reads from the same places; near-uniform maps look alike here too.",
  centred:
    "Cosine over queries after each column’s mean is taken off: free of what uniform attention adds; cannot tell how strong the attention is.",
};

/** The measures of a model and stage, or nothing yet. Counting needs no other threshold's answer. */
export function measures(loader, session, model, stage, threshold = 0.9) {
  const { id } = session.seen(model);
  const key = [model, id, "similarity", stage, threshold].join(" ");
  return loader.get(key, `similarity of ${model}, ${STAGES[stage]} stage`, ({ signal }) =>
    session.withImage(
      model,
      async (id) => {
        const value = await api.similarity({ id, model, stage, threshold }, { signal });
        return { value, bytes: 2e5 };
      },
      signal,
    ),
  );
}

/** Blocks more alike their predecessor than a threshold. */
export const similarBlocks = (neighbours, threshold) =>
  neighbours.flatMap((value, index) => (value > threshold ? [index + 1] : []));

/** From zero where nothing is negative, else around it: similarities end at 1. */
export const similarityScale = (...matrices) => ({
  signed: matrices.some((rows) => rows.some((row) => row.some((value) => value < 0))),
  limit: 1,
});

/** Said where pairs are opposite: why a low mean need not mean that maps differ. */
export const CANCELS =
  "Opposite signs cancel in the mean: a block that is not counted may still repeat the one before it but for signs.";

/** How many pairs of head and token are above the threshold, in words, and how many as far below 0. */
export function pairsBeyond(found, pairs) {
  const { neighbours, similar_blocks } = found;
  const above = `${formatPercent(average(neighbours.above_threshold))} of ${pairs} above ${formatNumber(similar_blocks.threshold)}`;
  if (!opposes(found)) return above;
  return `${above}, ${formatPercent(average(neighbours.below_negative))} below ${formatNumber(-similar_blocks.threshold)}`;
}

export const opposes = (found) => average(found.neighbours.below_negative) >= 0.005; // 0 % else

const average = (shares) => shares.reduce((sum, one) => sum + one, 0) / (shares.length || 1);
