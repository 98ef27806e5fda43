// Requests to the service's API. Every failure becomes a Problem that can be shown to people.

import { readNpy } from "./npy.js";

const KEY = "deepvit-api-key";

/** A failed request: what to tell the user, and after how many seconds to try again. */
export class Problem extends Error {
  constructor({ title, detail = "", code = "", status = 0, retryAfterS = null }) {
    super(detail ? `${title}: ${detail}` : title);
    Object.assign(this, { title, detail, code, status, retryAfterS });
  }

  /** The server does not have the picture, or no longer. */
  get isForgotten() {
    return this.code === "unknown-image" || this.code === "expired-image";
  }
}

/** The absolute URL of an API path, under whatever prefix the page is served. */
export const address = (path, query = {}) => {
  const found = new URL(path, document.baseURI);
  found.hash = "";
  found.search = new URLSearchParams(query).toString().replaceAll("%2C", ",");
  return found.href;
};

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

async function request(path, query, options = {}) {
  const headers = { ...options.headers };
  if (hasKey()) headers["X-API-Key"] = sessionStorage.getItem(KEY);
  let response;
  try {
    response = await fetch(address(path, query), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The server cannot be reached",
      detail: "the server or the network may be down",
      code: "unreachable",
    });
  }
  if (response.ok) return response;
  throw await problem(response);
}

async function problem(response) {
  const retryAfter = response.headers.get("Retry-After");
  let found = {};
  try {
    found = await response.json();
  } catch {
    // Not JSON, as when a proxy answers: the status alone has to do.
  }
  return new Problem({
    title: found.title ?? `The server answered ${response.status}`,
    detail: found.detail ?? found.error ?? "",
    code: found.code ?? "",
    status: response.status,
    retryAfterS: retryAfter === null ? null : Number(retryAfter),
  });
}

/** The body of a response; `progress(bytes, total)` is called as it arrives. */
async function download(response, progress) {
  const total = Number(response.headers.get("Content-Length"));
  if (!progress || !total || response.headers.get("Content-Encoding")) return response.arrayBuffer();
  const body = new Uint8Array(total);
  let at = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return body.buffer;
    body.set(value, at);
    at += value.length;
    progress(at, total);
  }
}

export async function models() {
  return (await (await request("models")).json()).models;
}

export async function manifest(name) {
  return (await (await request(`models/${encodeURIComponent(name)}`)).json()).manifest;
}

/** The classes of a picture, with the maps of the model's own query if a stage is given. */
export async function classify(picture, { model, stage, signal }) {
  const query = { model, top_k: 5, ...(stage ? { attention: true, stage } : {}) };
  const body = new FormData();
  body.append("image", picture);
  const answer = await (await request("classify", query, { method: "POST", body, signal })).json();
  return answer.results[0];
}

/** The prepared picture that the model saw, as a PNG Blob. */
export async function image(id, signal) {
  return (await request(`images/${id}`, {}, { signal })).blob();
}

/** { shape, values } of /attention-maps, as float32. */
export async function attentionMaps(query, { signal, progress }) {
  const response = await request("attention-maps", { ...query, format: "npy" }, { signal });
  return readNpy(await download(response, progress));
}

/** How a served model fares inside, over the images that the server measured of late. */
export async function monitor(model, signal) {
  return (await request("monitor", { model }, { signal })).json();
}

export async function similarity(query, { signal }) {
  return (await request("similarity", query, { signal })).json();
}

/** The logits of pixels [height, width, 3] that are already prepared for the model. */
export async function infer(model, pixels, { height, width }, signal) {
  const inputs = [{ name: "images", datatype: "UINT8", shape: [1, height, width, 3], data: Array.from(pixels) }];
  const body = JSON.stringify({ inputs, outputs: [{ name: "logits" }] });
  const options = { method: "POST", body, signal, headers: { "Content-Type": "application/json" } };
  const response = await request(`v2/models/${encodeURIComponent(model)}/infer`, {}, options);
  return (await response.json()).outputs[0].data;
}
