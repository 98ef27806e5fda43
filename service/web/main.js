// Puts the page together: the state in the URL, the current picture, and at most one drawing per frame.

import { hasKey, keepKey, Problem } from "./api.js";
import { Attention } from "./attention.js";
import { Cache } from "./cache.js";
import { listenForPictures, markSample, sample, showPredictions } from "./classify.js";
import { Compare } from "./compare.js";
import { Controls } from "./controls.js";
import { byId, make, say, setAspect } from "./dom.js";
import { copyText, openDialog } from "./download.js";
import { Loader } from "./loader.js";
import { Look } from "./look.js";
import { Monitor } from "./monitor.js";
import { hideProblem, showProblem, showProgress } from "./notice.js";
import { Scene } from "./scene.js";
import { scoresText } from "./scores.js";
import { Session } from "./session.js";
import { State } from "./state.js";
import { setUpTheme } from "./theme.js";
import { Understand } from "./understand.js";
import { Views } from "./views.js";

const CACHE_BYTES = 256e6;

const state = new State();
const session = new Session();
const loader = new Loader(new Cache(CACHE_BYTES), (progressOnly) =>
  progressOnly ? showProgress(loader) : redraw(),
);
const attention = new Attention(loader, session);
let preview = null;
let frame = 0;
let opening = new AbortController();
let reported = null;

const look = new Look(state, (query) => {
  preview = query;
  redraw();
});
const controls = new Controls(state);
const shared = { session, redraw };
const sections = {
  look: new Views(byId("look"), state, session),
  understand: new Understand(byId("understand"), state, shared),
  compare: new Compare(byId("compare"), state, shared),
};
const monitor = new Monitor(byId("monitor"), state, { redraw, askForKey });

function redraw() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    draw();
  });
}

function draw() {
  const { values } = state;
  for (const button of byId("sections").children) {
    button.setAttribute("aria-pressed", String(button.dataset.section === values.section));
    byId(button.dataset.section).hidden = button.dataset.section !== values.section;
  }
  byId("answer").hidden = values.section !== "look";
  const monitoring = values.section === "monitor";
  const seen = monitoring ? undefined : session.seen(values.model);
  byId("work").hidden = !seen;
  byId("start").hidden = monitoring;
  byId("start").classList.toggle("small", Boolean(seen));
  monitor.draw(monitoring);
  loader.begin();
  if (!seen) {
    loader.end();
    showProgress(loader);
    return;
  }
  // Rollout is one map over all blocks: where blocks are compared, the last block stands in for it.
  const rollout = values.layer === "rollout" && values.section !== "look";
  const shown = rollout ? { ...values, layer: "" } : values;
  const scene = new Scene(attention, session.facts(values.model), shown, preview);
  setAspect(byId("work"), scene.facts.aspect);
  controls.draw(scene);
  look.draw(scene, seen);
  showAnswer(seen);
  if (values.section === "look") sections.look.draw(scene, attention);
  else sections[values.section].draw(scene, { loader, session, attention, ensureClassified });
  loader.end();
  showProgress(loader);
  report(loader.failure);
}

/** Whether another model has classified the picture; if not, this is requested. */
function ensureClassified(model) {
  if (session.seen(model)?.predictions) return true;
  const key = `predictions ${model} ${session.seen(state.values.model).id} ${session.generation}`;
  loader.get(key, `the predictions of ${model}`, async ({ signal }) => ({
    value: await session.classifyWith(model, signal),
    bytes: 0,
  }));
  return false;
}

let answered = null;
function showAnswer(seen) {
  if (answered === seen || !seen.predictions) return;
  answered = seen;
  showPredictions(byId("predictions"), seen.predictions);
  byId("scores").textContent = scoresText(session.facts(state.values.model));
  const { timings } = seen;
  byId("timing").textContent = timings
    ? `${Object.values(timings)
        .reduce((sum, ms) => sum + ms, 0)
        .toFixed(1)} ms on the server, of which ${timings.inference.toFixed(1)} ms in the model.`
    : "";
}

function report(failure) {
  if (!failure || failure.stopped || failure === reported) return;
  reported = failure;
  fail(failure, () => {
    reported = null;
    loader.retry();
  });
}

function fail(error, retry) {
  if (error.name === "AbortError") return;
  if (error.code === "unauthorized") askForKey(retry);
  else showProblem(error, retry);
}

function askForKey(retry) {
  const input = make("input", { type: "password", autocomplete: "off", id: "api-key", required: true });
  const form = make(
    "form",
    { method: "dialog" },
    make(
      "p",
      {},
      hasKey()
        ? "The server rejected this key."
        : "This server requires an API key. The key is kept in this tab only.",
    ),
    make("label", { className: "field", htmlFor: "api-key" }, make("span", {}, "API key"), input),
    make("button", {}, "Use this key"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey(input.value);
    byId("dialog").close();
    retry();
  });
  openDialog("Authentication required", form);
  input.focus();
}

/** Run `work(signal)`, which brings a picture into the page; an earlier one under way is aborted. */
async function open(work) {
  opening.abort();
  opening = new AbortController();
  const { signal } = opening;
  hideProblem();
  preview = null;
  document.body.setAttribute("aria-busy", "true");
  try {
    await work(signal);
  } catch (error) {
    if (!signal.aborted) fail(error, () => open(work));
  } finally {
    if (!signal.aborted) document.body.removeAttribute("aria-busy");
  }
  redraw();
}

async function classify(picture, signal) {
  const { model, stage } = state.values;
  const facts = await session.load(model);
  const answer = await session.classify(picture, model, facts.mixing.size ? stage : "softmax", signal);
  if (signal.aborted) return;
  attention.storeRows(model, stage, answer);
  loader.retry();
  state.set({ id: answer.id, sample: picture.sample ?? "" });
  markSample(picture.sample);
  const [best] = answer.predictions;
  say(`${best.label}, ${(100 * best.probability).toFixed(0)} percent`);
}

/** Show what the URL says, at the start or after the user changed it. */
async function follow() {
  const { values } = state;
  let missing = "";
  if (!session.models.some((model) => model.name === values.model)) {
    missing = values.model;
    state.set({ model: session.defaultModel });
  }
  byId("model").value = values.model;
  markSample(values.sample);
  const here = values.section === "monitor" || (values.id && session.seen(values.model)?.id === values.id);
  if (here || (!values.id && !values.sample)) redraw();
  else await open((signal) => fetchPicture(values, signal));
  if (missing)
    showProblem(
      new Problem({
        title: "No such model",
        detail: `${missing} is not served here. Showing ${values.model} instead.`,
      }),
    );
}

/** Classify a sample again; any other picture must still be stored on the server. */
async function fetchPicture({ id, model, sample: name }, signal) {
  if (!name) return session.open(id, model, signal);
  const picture = await sample(name);
  if (!picture) throw new Problem({ title: "No such sample", detail: name });
  return classify(picture, signal);
}

/** Show another section; the picture, which the monitor does without, may not be there yet. */
function changeSection(section) {
  const before = state.values.section;
  state.set({ section });
  if (before !== "monitor" || section === "monitor") return;
  const { model } = state.values;
  if (session.generation && !session.seen(model))
    open(async (signal) => {
      const seen = await session.classifyWith(model, signal);
      if (!signal.aborted) state.set({ id: seen.id });
    });
  else follow();
}

function changeModel(model) {
  const fresh = { model, layer: "", pair: "" };
  if (state.values.section === "monitor" || !session.seen(state.values.model)) return state.set(fresh);
  return open(async (signal) => {
    try {
      const seen = await session.classifyWith(model, signal);
      if (!signal.aborted) state.set({ ...fresh, id: seen.id });
    } finally {
      byId("model").value = state.values.model;
    }
  });
}

async function start() {
  await session.start();
  if (!session.models.length)
    throw new Problem({ title: "The server has no models", detail: "export one first" });
  byId("model").replaceChildren(...session.models.map(({ name }) => make("option", { value: name }, name)));
  follow();
}

setUpTheme();
listenForPictures((picture) => open((signal) => classify(picture, signal)));
state.listen((navigated) => (navigated ? follow() : redraw()));
byId("model").addEventListener("change", ({ target }) => changeModel(target.value));
for (const button of byId("sections").children)
  button.addEventListener("click", () => changeSection(button.dataset.section));
byId("share").addEventListener("click", ({ target }) => copyText(state.link, target));
const begin = () => start().catch((error) => fail(error, begin));
begin();
