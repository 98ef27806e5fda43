// Cards whose content can be downloaded, as a PNG with title and colour scale or as an NPZ of the
// numbers, and reproduced by an API call.

import { address, hasKey } from "./api.js";
import { chartCanvas } from "./chart.js";
import { byId, make } from "./dom.js";
import { formatNumber } from "./format.js";
import { writeNpz } from "./npz.js";
import { ramp } from "./paint.js";
import { colourBarTicks } from "./ticks.js";

const [PANEL, SINGLE, WIDE, GAP, MARGIN] = [220, 640, 850, 12, 28];

/**
 * A titled part of the page with download buttons. Once its `owner` is `ready`, `snapshot()` describes
 * what is shown: { name, title, panels: [{ label, canvas, behind, opacity, aspect }], across, aspect,
 * scale, chart, arrays, call: { path, query, json } }. `aspect` is the width of a panel by its height,
 * 1 by default. A `chart` takes the place of `panels`. Without a `snapshot` there is nothing to download.
 */
export function card(title, owner, snapshot, ...children) {
  const tools = make("div", { className: "downloads", role: "group", aria: { label: `Downloads: ${title}` } });
  const button = (text, action) => {
    const element = make("button", { type: "button", aria: { label: `${text} of ${title}` } }, text);
    element.addEventListener("click", () =>
      owner.ready
        ? action(snapshot())
        : openDialog("Not loaded yet", make("p", {}, "Wait until this view is drawn, or load it first.")),
    );
    tools.append(element);
  };
  if (snapshot) {
    button("PNG", savePng);
    button("NPZ", (view) => save(writeNpz(view.arrays), `${view.name}.npz`));
    button("API call", showCall);
  }
  return make(
    "section",
    { className: "card", aria: { label: title } },
    make("header", {}, make("h2", {}, title), snapshot ? tools : null),
    ...children,
  );
}

function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: `deepvit-${name}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function savePng(view) {
  const canvas = view.chart ? addTitle(await chartCanvas(view.chart), view.title) : drawPanels(view);
  canvas.toBlob((blob) => save(blob, `${view.name}.png`), "image/png");
}

/** Panels in rows below a title, with the colour bar at the bottom. */
function drawPanels({ title, panels, scale, aspect = 1, across = Math.ceil(Math.sqrt(panels.length)) }) {
  const columns = Math.min(across, panels.length);
  const side = panels.length > 1 ? PANEL : aspect > 2 ? WIDE : SINGLE; // of a square of the same area
  const sizes = panels.map((panel) => {
    const root = Math.sqrt(panel.aspect ?? aspect);
    return [Math.round(side * root), Math.round(side / root)];
  });
  const [width, height] = [0, 1].map((axis) => Math.max(...sizes.map((size) => size[axis])));
  const rows = Math.ceil(panels.length / columns);
  const canvas = make("canvas", {
    width: Math.max(560, 2 * MARGIN + columns * (width + GAP)),
    height: 2 * MARGIN + 30 + rows * (height + GAP + 18) + (scale ? 56 : 0),
  });
  const context = beginDrawing(canvas, title);
  panels.forEach((panel, index) => {
    const x = MARGIN + (index % columns) * (width + GAP);
    const y = MARGIN + 30 + Math.floor(index / columns) * (height + GAP + 18);
    context.fillText(panel.label, x, y + 12);
    for (const layer of [panel.behind, panel.canvas]) {
      if (!layer) continue;
      context.globalAlpha = layer === panel.canvas ? (panel.opacity ?? 1) : 1;
      context.drawImage(layer, x, y + 18, ...sizes[index]);
    }
    context.globalAlpha = 1;
  });
  if (scale) {
    const y = canvas.height - MARGIN - 30;
    context.drawImage(ramp(scale), MARGIN, y, 400, 12);
    colourBarTicks(scale).forEach((value, index) => {
      context.textAlign = ["left", "center", "center", "center", "right"][index];
      context.fillText(formatNumber(value), MARGIN + index * 100, y + 28);
    });
  }
  return canvas;
}

function addTitle(inner, title) {
  const canvas = make("canvas", { width: inner.width + 2 * MARGIN, height: inner.height + 2 * MARGIN + 30 });
  beginDrawing(canvas, title).drawImage(inner, MARGIN, MARGIN + 30);
  return canvas;
}

function beginDrawing(canvas, title) {
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.body);
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.fillStyle = style.color;
  context.font = `600 15px ${style.fontFamily}`;
  context.fillText(title, MARGIN, MARGIN + 8);
  context.font = `12px ${style.fontFamily}`;
  return context;
}

function showCall({ title, call, name }) {
  const query = call.json ? call.query : { ...call.query, format: "npy" };
  const url = address(call.path, query);
  const key = hasKey() ? `-H 'X-API-Key: YOUR_KEY' ` : "";
  const curl = call.json ? `curl -s ${key}'${url}'` : `curl -s ${key}-o ${name}.npy '${url}'`;
  const request = hasKey() ? `Request(url, headers={"X-API-Key": "YOUR_KEY"})` : "url";
  const imports = hasKey()
    ? "from urllib.request import Request, urlopen"
    : "from urllib.request import urlopen";
  const python = call.json
    ? `import json\n${imports}\n\nurl = "${url}"\nanswer = json.load(urlopen(${request}))\nprint(list(answer))`
    : `import io\n${imports}\n\nimport numpy as np\n\nurl = "${url}"\nmaps = np.load(io.BytesIO(urlopen(${request}).read()))\nprint(maps.shape)`;
  openDialog(title, code("With curl", curl), code("With Python", python));
}

function code(title, text) {
  const copy = make("button", { type: "button" }, "Copy");
  copy.addEventListener("click", () => copyText(text, copy));
  return make(
    "section",
    { className: "code" },
    make("header", {}, make("h3", {}, title), copy),
    make("pre", { tabIndex: 0, aria: { label: title } }, text),
  );
}

/** Copy text and confirm it on the button; if the browser refuses, show the text to copy by hand. */
export async function copyText(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = before), 1500);
  } catch {
    if (!byId("dialog").open)
      openDialog("Copy this text", make("pre", { tabIndex: 0, aria: { label: "Text to copy" } }, text));
    else getSelection().selectAllChildren(button.closest("section").querySelector("pre"));
  }
}

export function openDialog(title, ...children) {
  const dialog = byId("dialog");
  const close = make("button", { type: "button" }, "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(make("header", {}, make("h2", { id: "dialog-title" }, title), close), ...children);
  dialog.showModal();
}
