// The measures of /similarity: loading, counting and describing them.

import * as api from "./api.js";
import { STAGES } from "./attention.js";
import { formatNumber, formatPercent } from "./format.js";

export const VARIANTS = {
  column:
    "Cosine over queries (Eq. 2 of the paper): shows whether a token contributes to the outputs in the same way, but not which tokens are attended to when all queries attend alike.",
  row: "Cosine over keys: shows whether a token attends to the same places, but near-uniform maps also look alike.",
  centred:
    "Cosine over queries after subtracting each column’s mean: removes what uniform attention adds, but does not show how strong the attention is.",
};

/**
 * The measures of a model and stage, or undefined until loaded. Of these, only the shares of pairs and
 * the count of similar blocks depend on the threshold.
 */
export function measures(loader, session, model, stage, threshold = 0.9) {
  const { id } = session.seen(model);
  const key = [model, id, "similarity", stage, threshold].join(" ");
  return loader.get(key, `similarity measures of ${model}, ${STAGES[stage]} stage`, ({ signal }) =>
    session.withImage(
      model,
      async (id) => {
        const value = defined(await api.similarity({ id, model, stage, threshold }, { signal }));
        return { value, bytes: 2e5 };
      },
      signal,
    ),
  );
}

/** The blocks whose similarity to the previous block is above the threshold. */
export const similarBlocks = (neighbours, threshold) =>
  neighbours.flatMap((value, index) => (value > threshold ? [index + 1] : []));

/** A colour scale for similarities, which are at most 1: signed only if some are negative. */
/** The matrices of an answer with NaN for what is not defined, which JSON writes as null. */
export const defined = (answer) => ({
  ...answer,
  matrix: Object.fromEntries(
    Object.entries(answer.matrix).map(([variant, rows]) => [
      variant,
      rows.map((row) => row.map((value) => value ?? NaN)),
    ]),
  ),
});

export const similarityScale = (...matrices) => ({
  signed: matrices.some((rows) => rows.some((row) => row.some((value) => value < 0))),
  limit: 1,
});

/** Shown where pairs have opposite signs: a low mean then does not imply that the maps differ. */
export const CANCELLATION =
  "Opposite signs cancel in the mean: a block that is not counted may still repeat the previous one with signs flipped.";

/** A text with the share of `pairs` above the threshold and, if any, the share below its negative. */
export function describePairs(found, pairs) {
  const { neighbours, similar_blocks } = found;
  const { threshold } = similar_blocks;
  const share = (shares) => formatPercent(average(shares));
  const above = `${share(neighbours.above_threshold)} of ${pairs} above ${formatNumber(threshold)}`;
  if (!hasOppositePairs(found)) return above;
  return `${above}, ${share(neighbours.below_negative)} below ${formatNumber(-threshold)}`;
}

/** Whether the share of pairs below the negative threshold is not rounded to 0%. */
export const hasOppositePairs = (found) => average(found.neighbours.below_negative) >= 0.005;

const average = (shares) => shares.reduce((sum, one) => sum + one, 0) / (shares.length || 1);
