// Tables of the Monitor section: repeated blocks, answered classes, and what was sampled.

import { STAGES } from "./attention.js";
import { make } from "./dom.js";
import { blocksText, classBars, count, shareText } from "./drift.js";

/** Similar and collapsed blocks by stage, on the means of the window. */
export function blocksTable({ similar_blocks, collapsed_blocks }) {
  const row = (stage) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, STAGES[stage]),
      make("td", {}, blocksText(similar_blocks[stage])),
      make("td", {}, blocksText(collapsed_blocks[stage] ?? [])),
    );
  return table(
    ["stage", "similar to the previous block", "collapsed"],
    Object.keys(similar_blocks).map(row),
    "repeated",
  );
}

/** Each class with its share of the window as a bar, and of the reference as a mark. */
export function classTable(classes) {
  const known = classes.shares.some(({ reference }) => reference !== null);
  const rows = classBars(classes).map(({ label, share, reference, length, mark }) => {
    const fill = make("span", { className: "bar-fill" });
    fill.style.width = `${100 * length}%`;
    const track = make("div", { className: "bar-track", aria: { hidden: "true" } }, fill);
    if (mark !== null) {
      const line = make("span", { className: "bar-mark" });
      line.style.left = `${100 * mark}%`;
      track.append(line);
    }
    return make(
      "tr",
      {},
      make("th", { scope: "row", className: "label", title: label }, label),
      make("td", { className: "bars" }, track),
      make("td", {}, shareText(share)),
      known ? make("td", {}, reference === null ? "" : shareText(reference)) : null,
    );
  });
  const columns = ["class", "", "window", ...(known ? ["reference"] : [])];
  return make(
    "div",
    {},
    table(columns, rows, "shares"),
    make("p", { className: "quiet" }, known ? "Bars: the window. Lines: the reference." : "Bars: the window."),
  );
}

/** How many images were measured, and how many were not. */
export function sampleList(sample, { samples }) {
  const rows = [
    ["Share of answered images", shareText(sample)],
    ["Measured", count(samples.measured)],
    ["Waiting", count(samples.waiting)],
    ["Dropped, as the server was busy", count(samples.dropped)],
    ["Failed", count(samples.failed)],
  ];
  return make("dl", { className: "sampled" }, ...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
}

function table(columns, rows, className) {
  const header = columns.map((name) => (name ? make("th", { scope: "col" }, name) : make("td")));
  return make(
    "table",
    { className },
    make("thead", {}, make("tr", {}, ...header)),
    make("tbody", {}, ...rows),
  );
}
