// How logits become probabilities.

/** Of one right class among all (softmax), or of each class by itself (sigmoid). */
export function probabilities(logits, scores) {
  if (scores === "sigmoid") return logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  const most = Math.max(...logits);
  const shares = logits.map((logit) => Math.exp(logit - most));
  const sum = shares.reduce((total, share) => total + share, 0);
  return shares.map((share) => share / sum);
}

/** What probabilities mean where they do not share 100 % among the classes. */
export function scoresText({ scores, labels }) {
  if (scores === "softmax") return "";
  return labels.length === 1
    ? "The model has one class, which is right or not; above 50% it says yes."
    : "Each class is right or not by itself, so percentages do not add up to 100%.";
}
