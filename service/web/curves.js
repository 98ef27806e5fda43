// Entropy of attention and how far it reaches, block by block, each head and their mean.

import { Chart } from "./chart.js";
import { number } from "./scale.js";

export class Curves {
  constructor() {
    this.entropy = new Chart("Entropy of attention");
    this.distance = new Chart("Attention distance");
  }

  /** `soft` has the measures of the softmax stage, where these are defined. */
  draw(soft, facts) {
    const xs = soft.entropy.map((_, layer) => String(layer));
    const lines = (table) => [
      ...Array.from({ length: facts.heads }, (_, head) => ({
        name: `head ${head}`,
        values: table.map((row) => row[head]),
        faint: true,
      })),
      {
        name: "mean of heads",
        values: table.map((row) => row.reduce((sum, one) => sum + one, 0) / row.length),
      },
    ];
    const most = Math.log(facts.tokens);
    this.entropy.draw({
      xs,
      series: lines(soft.entropy),
      low: 0,
      high: most * 1.06,
      step: 1,
      line: { value: most, name: `uniform: ${number(most)}` },
      legend: "Bold: mean of heads. Faint: each head.",
    });
    const far = Math.max(...soft.attention_distance.flat());
    this.distance.draw({
      xs,
      series: lines(soft.attention_distance),
      low: 0,
      high: far * 1.05,
      step: roundStep(far / 4),
      legend: "Bold: mean of heads. Faint: each head. Pixels of the model’s input.",
    });
  }
}

/** A step for ticks that people like to count in. */
function roundStep(value) {
  const unit = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 5, 10].map((times) => times * unit).find((step) => step >= value);
}
