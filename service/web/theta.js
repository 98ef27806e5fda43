// How re-attention mixes the heads of a block: the matrix Theta, and the row sums of the mixed maps.

import { STAGES } from "./attention.js";
import { cssColour } from "./colour.js";
import { make } from "./dom.js";
import { formatNumber, formatPercent } from "./format.js";

export class Theta {
  #shown = "";

  constructor() {
    this.element = make("div", { className: "theta" });
  }

  /** `block` [H, N, N] are the maps after re-attention, once they are loaded. */
  draw(scene, block) {
    const key = [scene.model, scene.layer, scene.stage, block ? "measured" : ""].join(" ");
    if (key === this.#shown && this.source === block?.buffer) return;
    [this.#shown, this.source] = [key, block?.buffer];
    const mixing = scene.facts.mixing.get(scene.layer);
    if (!mixing) {
      const text = scene.rollout
        ? "Choose a block to see its Theta."
        : `Block ${scene.layer} has no re-attention: both stages have the same maps.`;
      this.element.replaceChildren(make("p", {}, text));
      return;
    }
    this.element.classList.toggle("many", scene.facts.heads > 8);
    this.element.replaceChildren(
      matrixFigure("Theta as trained", mixing.theta),
      matrixFigure(mixing.row_sum ? "With the norm folded in" : "Centred over heads", mixing.matrix),
      mixing.row_sum
        ? this.#sums(mixing, block, scene)
        : make("p", {}, "A LayerNorm over heads follows at each entry, so row sums are not constant."),
    );
  }

  #sums(mixing, block, scene) {
    const { tokens } = scene.facts;
    const rows = mixing.row_sum.map((sum, head) => {
      const cells = [make("th", { scope: "row" }, String(head)), numberCell(mixing.offset[head]), numberCell(sum)];
      if (block) {
        const map = block.subarray(head * tokens * tokens, (head + 1) * tokens * tokens);
        let [total, negative] = [0, 0];
        for (const entry of map) {
          total += entry;
          negative += entry < 0;
        }
        cells.push(numberCell(total / tokens), make("td", {}, formatPercent(negative / map.length)));
      }
      return make("tr", {}, ...cells);
    });
    const columns = [
      "head",
      "offset",
      "row sum, from the weights",
      ...(block ? ["row sum, measured", "negative entries"] : []),
    ];
    return make(
      "figure",
      {},
      make("figcaption", {}, make("h3", {}, "Effect on the maps")),
      make(
        "div",
        { className: "scroll" },
        make(
          "table",
          {},
          make("thead", {}, make("tr", {}, ...columns.map((title) => make("th", { scope: "col" }, title)))),
          make("tbody", {}, ...rows),
        ),
      ),
      make(
        "p",
        { className: "quiet" },
        "All rows of a head’s mixed map have the same sum, which follows from the weights alone." +
          (block ? ` Measured values are those of the ${STAGES[scene.stage]} stage.` : ""),
      ),
    );
  }
}

/** Fewer decimals for larger matrices, the same in every cell so that columns line up. */
const fixed = (entry, limit) => {
  const text = entry.toFixed(limit < 2 ? 2 : limit < 20 ? 1 : 0);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
};

const numberCell = (entry) => make("td", { data: { value: entry } }, formatNumber(entry));

function matrixFigure(title, matrix) {
  const limit = Math.max(...matrix.flat().map(Math.abs));
  const header = make(
    "tr",
    {},
    make("td", {}),
    ...matrix.map((_, head) => make("th", { scope: "col" }, String(head))),
  );
  const rows = matrix.map((row, head) => {
    const cells = row.map((entry, from) => {
      const { fill, ink } = cssColour(entry, { signed: true, limit });
      const cell = make("td", { title: `head ${head} gets ${entry} times head ${from}` }, fixed(entry, limit));
      cell.style.background = fill;
      cell.style.color = ink;
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row" }, String(head)), ...cells);
  });
  return make(
    "figure",
    {},
    make("figcaption", {}, make("h3", {}, title)),
    make(
      "div",
      { className: "scroll" },
      make("table", { className: "numbers" }, make("thead", {}, header), make("tbody", {}, ...rows)),
    ),
    make("p", { className: "quiet" }, "Rows: output heads. Columns: input heads."),
  );
}
