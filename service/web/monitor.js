// The Monitor section: how a model fares inside on what it is sent, against what is normal of it. Asks
// the server every few seconds while it is visible.

import * as api from "./api.js";
import { Chart } from "./chart.js";
import { make, radios, say, select } from "./dom.js";
import { card } from "./download.js";
import {
  deviationChart,
  distanceText,
  entryOf,
  historyChart,
  measureOf,
  placeText,
  shareText,
  timeText,
  valueChart,
  verdictOf,
  windowText,
} from "./drift.js";
import { Poller } from "./poller.js";
import { blocksTable, classTable, sampleList } from "./sampled.js";
import { Strongest } from "./strongest.js";

const EVERY_S = 5;

const HOW_TO_SAMPLE = "DEEPVIT_MONITOR_SAMPLE=0.01 python -m service";
const HOW_TO_REFER = "python -m export CHECKPOINT --name NAME --reference FOLDER";

export class Monitor {
  #said = "";
  #selected = "";

  constructor(element, state, { redraw, askForKey }) {
    this.element = element;
    this.state = state;
    this.askForKey = askForKey;
    this.poller = new Poller(api.monitor, redraw, waitMs);
    document.addEventListener("visibilitychange", redraw);

    this.verdict = make("p", { className: "verdict" });
    this.window = make("p", { className: "quiet" });
    this.help = make("div", { className: "help", hidden: true });
    this.updated = make("p", { className: "quiet", id: "updated" });
    this.away = make("div", { className: "away", role: "status", hidden: true });
    this.history = new Chart("Drift over time");
    this.early = make("p", { className: "quiet" });
    this.strongest = new Strongest(state);
    this.measure = select("Measure", (measure) => state.set({ measure, layer: "" }));
    this.stage = radios(
      "monitored-stage",
      "Stage",
      [
        ["softmax", "softmax", "before re-attention mixes the heads"],
        ["reattention", "re-attention", "after re-attention mixes the heads"],
      ],
      (stage) => state.set({ stage }),
    );
    this.values = new Chart("Measure of each block");
    this.valuesTitle = make("h3");
    this.deviations = new Chart("Deviation of each block");
    this.deviating = make("div", {}, make("h3", {}, "Deviation"), this.deviations.element);
    this.blocks = make("div");
    this.classes = make("div");
    this.sampled = make("div");

    this.judged = [
      card("Drift over time", this, () => this.#historySnapshot(), this.history.element, this.early),
      card("Strongest deviations", this, null, this.strongest.element),
    ];
    this.cards = make(
      "div",
      { className: "cards" },
      ...this.judged,
      card(
        "Each block",
        this,
        () => this.#valuesSnapshot(),
        make("div", { className: "row" }, this.measure.element, this.stage.element),
        make(
          "div",
          { className: "two" },
          make("div", {}, this.valuesTitle, this.values.element),
          this.deviating,
        ),
      ),
      card("Answered classes", this, null, this.classes),
      make(
        "div",
        { className: "pile" },
        card("Repeated blocks", this, null, this.blocks),
        card("What was sampled", this, null, this.sampled),
      ),
    );
    element.append(
      this.away,
      make(
        "section",
        { className: "card state", aria: { label: "Verdict" } },
        this.verdict,
        this.window,
        this.help,
        this.updated,
      ),
      this.cards,
    );
  }

  draw(shown) {
    const { model } = this.state.values;
    const visible = shown && document.visibilityState === "visible";
    this.poller.want(visible && model ? model : null);
    if (!visible) return;
    const { value, error } = this.poller;
    this.#drawAway(error);
    const off = value?.sample === 0;
    const found = value?.models.find((one) => one.model === model);
    this.model = off ? undefined : found;
    this.cards.hidden = !this.model?.window.images;
    this.element.classList.toggle("stale", Boolean(error));
    this.#drawVerdict(value, off, error);
    if (this.cards.hidden) return;
    for (const one of this.judged) one.hidden = !this.model.reference;
    this.#drawHistory();
    this.strongest.draw(this.model);
    this.#drawMeasure();
    this.blocks.replaceChildren(blocksTable(this.model));
    this.classes.replaceChildren(
      make("p", {}, distanceText(this.model.classes)),
      classTable(this.model.classes),
    );
    this.sampled.replaceChildren(sampleList(value.sample, this.model));
  }

  /** Why there is nothing newer than what is shown. */
  #drawAway(error) {
    this.away.hidden = !error;
    if (!error) {
      this.reported = null;
      return;
    }
    if (error === this.reported) return;
    this.reported = error;
    const { at } = this.poller;
    const shown = at ? ` What is shown was measured until ${timeText(at)}.` : "";
    const locked = error.code === "unauthorized";
    const next = locked ? "" : ` Asked again every ${waitMs(error) / 1000} s.`;
    const detail = error.detail ? `: ${error.detail}.` : ".";
    const children = [make("strong", {}, error.title ?? "Something went wrong in this page"), `${detail}${next}${shown}`];
    if (locked) {
      const ask = () => this.askForKey(() => this.poller.retry());
      const button = make("button", { type: "button" }, "Enter the API key");
      button.addEventListener("click", ask);
      children.push(" ", button);
      ask();
    }
    this.away.replaceChildren(...children);
  }

  #drawVerdict(value, off, error) {
    const found = off ? offVerdict : this.model ? verdictOf(this.model) : waitingVerdict(value, error);
    this.verdict.dataset.kind = found.kind;
    this.verdict.replaceChildren(make("strong", {}, found.title), " ", found.text);
    this.window.textContent = this.model?.window.images ? windowText(this.model) : "";
    this.#drawHelp(found, value);
    const { at } = this.poller;
    this.updated.textContent = at
      ? `Updated at ${at.toLocaleTimeString("en-GB")}, every ${EVERY_S} s while this page is visible.`
      : "";
    const sentence = `Monitor: ${found.title}`;
    if (sentence !== this.#said && found.kind !== "waiting") say(sentence);
    this.#said = sentence;
  }

  #drawHelp({ kind }, value) {
    const how = {
      off: ["Start the service with the share of answered images that is to be measured:", HOW_TO_SAMPLE],
      "no-reference": ["Export the model with a folder of ordinary images:", HOW_TO_REFER],
    }[kind];
    const wait =
      kind === "unmeasured" &&
      `${shareText(value.sample)} of answered images are measured, when the server has time. Send it some to classify.`;
    this.help.hidden = !how && !wait;
    if (this.help.dataset.kind === kind) return;
    this.help.dataset.kind = kind;
    if (how) {
      const [text, command] = how;
      this.help.replaceChildren(
        make("p", {}, text),
        make("pre", { tabIndex: 0, aria: { label: "Command" } }, command),
      );
    } else this.help.replaceChildren(wait ? make("p", {}, wait) : "");
  }

  #drawHistory() {
    const chart = historyChart(this.model.history, this.model.reference);
    this.history.element.hidden = !chart;
    this.early.textContent = chart
      ? "A point is added for every 10 measured images."
      : "There is no drift yet. A point is added for every 10 measured images.";
    if (chart) this.history.draw(chart);
  }

  #drawMeasure() {
    const { measures } = this.model;
    const { measure, stage, layer } = this.state.values;
    const names = [...new Set(measures.map((one) => one.measure))];
    this.measure.options = names.map((name) => [name, measureOf(name).name]);
    const entry = entryOf(measures, measure, stage);
    this.entry = entry;
    this.measure.value = entry.measure;
    this.stage.element.hidden = !entry.stage;
    this.stage.value = entry.stage;
    for (const one of ["softmax", "reattention"])
      this.stage.enable(
        one,
        measures.some((other) => other.measure === entry.measure && other.stage === one),
      );
    this.values.draw(valueChart(entry, this.model));
    const deviations = deviationChart(entry, this.model);
    this.deviating.hidden = !deviations;
    this.valuesTitle.textContent = deviations ? "Window against reference" : "Window";
    if (deviations) this.deviations.draw(deviations);
    const selected = `${entry.measure} ${entry.stage} ${layer}`;
    if (layer === "" || selected === this.#selected) return;
    this.#selected = selected;
    const place = entry.blocks.indexOf(Number(layer));
    this.values.select(place);
    if (deviations) this.deviations.select(place);
  }

  get ready() {
    return Boolean(this.model?.measures.length);
  }

  #historySnapshot() {
    const values = Float32Array.from(this.model.history, (one) => one.drift ?? NaN);
    return {
      name: "drift",
      title: `${this.model.model}: drift over time`,
      chart: this.history.svg,
      arrays: { drift: { shape: [values.length], values } },
      call: this.#call,
    };
  }

  #valuesSnapshot() {
    const { measure, stage } = this.entry;
    const parts = ["mean", "spread", "deviation", "reference_mean", "reference_spread"];
    return {
      name: [measure, stage].filter(Boolean).join("-"),
      title: `${this.model.model}: ${placeText({ measure, stage })}`,
      chart: this.values.svg,
      arrays: Object.fromEntries(
        parts
          .filter((part) => this.entry[part])
          .map((part) => {
            const values = Float32Array.from(this.entry[part], (one) => one ?? NaN);
            return [part, { shape: [values.length], values }];
          }),
      ),
      call: this.#call,
    };
  }

  get #call() {
    return { path: "monitor", query: { model: this.model.model }, json: true };
  }
}

const offVerdict = { kind: "off", title: "Monitoring is off", text: "This server measures none of the images that it answers." };

function waitingVerdict(value, error) {
  if (error) return { kind: "waiting", title: "Not known", text: "The server has not answered yet." };
  if (value) return { kind: "waiting", title: "Not monitored", text: "The server says nothing of this model." };
  return { kind: "waiting", title: "Loading…", text: "" };
}

/** Milliseconds until the server is asked again; a key that is missing comes from the user. */
function waitMs(error) {
  if (error?.code === "unauthorized") return Infinity;
  return 1000 * Math.max(EVERY_S, error?.retryAfterS ?? 0);
}
