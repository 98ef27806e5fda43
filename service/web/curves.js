// Entropy of attention and its distance, block by block: a line for each head and for their mean.

import { Chart } from "./chart.js";
import { formatNumber } from "./format.js";
import { roundStep } from "./ticks.js";

export class Curves {
  constructor() {
    this.entropy = new Chart("Entropy of attention");
    this.distance = new Chart("Attention distance");
  }

  /** `measures` are those of the softmax stage: only its rows are probabilities. */
  draw(measures, facts) {
    this.entropy.draw(entropyChart(measures.entropy, facts.tokens));
    this.distance.draw(distanceChart(measures.attention_distance));
  }
}

/** `table` [L, H] in nats; the most that `tokens` allow is that of uniform attention. */
export function entropyChart(table, tokens) {
  const uniform = Math.log(tokens);
  return {
    ...linesOf(table),
    high: uniform * 1.06,
    step: 1,
    lines: [{ value: uniform, name: `uniform: ${formatNumber(uniform)}` }],
    unit: "nats",
    legend: "Bold: mean of heads. Faint: single heads.",
  };
}

/** `table` [L, H] in pixels of the model's input. */
export function distanceChart(table) {
  const farthest = Math.max(...table.flat());
  return {
    ...linesOf(table),
    high: farthest * 1.05,
    step: roundStep(farthest / 4),
    unit: "px",
    legend: "Bold: mean of heads. Faint: single heads. In pixels of the model’s input.",
  };
}

/** Block numbers, and a series for each head followed by that of their mean. */
function linesOf(table) {
  const heads = table[0].map((_, head) => ({
    name: `head ${head}`,
    values: table.map((row) => row[head]),
    faint: true,
  }));
  const mean = {
    name: "mean of heads",
    values: table.map((row) => row.reduce((sum, value) => sum + value, 0) / row.length),
  };
  return { xs: table.map((_, layer) => String(layer)), series: [...heads, mean], low: 0 };
}
