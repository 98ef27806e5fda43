// The current picture, and what each model made of it.

import * as api from "./api.js";
import { probabilities } from "./scores.js";
import { sameSize, sizeOf, sizeText } from "./size.js";

export class Session {
  models = [];
  generation = 0; // counts pictures
  picture = null; // { blob, name }, or null if the page has only the picture's id
  #manifests = new Map();
  #seen = new Map(); // model: { id, predictions, timings, pixels }

  async start() {
    this.models = await api.models();
  }

  get defaultModel() {
    return (this.models.find((model) => model.default) ?? this.models[0])?.name;
  }

  /** What the page needs of a model's manifest, or undefined until loaded. */
  facts(name) {
    return this.#manifests.get(name);
  }

  async load(name) {
    if (this.#manifests.has(name)) return this.#manifests.get(name);
    const found = await api.manifest(name);
    const size = sizeOf(found.preprocessing.size);
    const patch = sizeOf(found.config.patch_size);
    const [rows, columns] = [size.height / patch.height, size.width / patch.width];
    const facts = {
      name,
      labels: found.labels,
      scores: found.config.scores,
      size,
      aspect: size.width / size.height,
      layers: found.config.depth,
      heads: found.config.num_heads,
      rows, // of patches
      columns,
      prefix: found.config.prefix_tokens, // tokens before the patches, the class token first
      classToken: found.config.class_token,
      distilled: found.config.pool === "cls_dist",
      tokens: rows * columns + found.config.prefix_tokens,
      patch,
      donor: found.config.attention_donor ?? Infinity, // blocks after it share its softmax map
      mixing: new Map(found.reattention.map((one) => [one.block, one])),
    };
    this.#manifests.set(name, facts);
    return facts;
  }

  /** What a model made of the current picture, or undefined until it has classified it. */
  seen(name) {
    return this.#seen.get(name);
  }

  #forget() {
    this.#seen.clear();
    this.generation += 1;
    this.picture = null;
  }

  /** Classify a new picture, with the maps of the model's own query if a stage is given. */
  async classify(picture, model, stage, signal) {
    const answer = await api.classify(picture.blob, { model, stage, signal });
    const seen = await this.#entry(model, answer.id, answer, signal);
    this.#forget();
    this.picture = picture;
    this.#seen.set(model, seen);
    return answer;
  }

  /** Open a picture from a link, which the server still stores. */
  async open(id, model, signal) {
    const seen = await this.#entry(model, id, {}, signal);
    this.#forget();
    this.#seen.set(model, seen);
    await this.#predict(model, signal);
  }

  /** Classify the current picture with another model, unless it was before. */
  async classifyWith(model, signal) {
    const known = this.#seen.get(model);
    if (known?.predictions) return known;
    const facts = await this.load(model);
    if (this.picture) {
      const answer = await api.classify(this.picture.blob, { model, signal });
      const seen = await this.#entry(model, answer.id, answer, signal);
      this.#seen.set(model, seen);
      return seen;
    }
    const prepared = [...this.#seen.values()].find((one) => sameSize(one.pixels, facts.size));
    if (!prepared)
      throw new api.Problem({
        title: "This model needs another input size",
        detail: `${model} needs ${sizeText(facts.size)}, but this page has the picture only as prepared for another model. Choose the file again.`,
        code: "input-mismatch",
      });
    this.#seen.set(model, { ...prepared, predictions: null, timings: null });
    return this.#predict(model, signal);
  }

  /** Run `request(id)`; if the server no longer has the picture, upload it again and retry once. */
  async withImage(model, request, signal) {
    const { id } = this.#seen.get(model);
    try {
      return await request(id);
    } catch (error) {
      if (!error.isForgotten) throw error;
      if (!this.picture) throw forgotten(error);
      await api.classify(this.picture.blob, { model, signal });
      return request(id);
    }
  }

  async #entry(model, id, answer, signal) {
    const facts = await this.load(model);
    let blob;
    try {
      blob = await api.image(id, signal);
    } catch (error) {
      throw error.isForgotten ? forgotten(error) : error;
    }
    const pixels = await rgba(blob);
    if (!sameSize(pixels, facts.size))
      throw new api.Problem({
        title: "The link does not fit the model",
        detail: `the picture was prepared at ${sizeText(pixels)}, but ${model} needs ${sizeText(facts.size)}. Choose the file again.`,
        code: "input-mismatch",
      });
    return { id, predictions: answer.predictions, timings: answer.timings_ms, pixels };
  }

  /** Classify the prepared pixels, where the page has no file to upload. */
  async #predict(model, signal) {
    const facts = await this.load(model);
    const seen = this.#seen.get(model);
    const rgb = seen.pixels.data.filter((_, index) => index % 4 !== 3);
    const logits = await api.infer(model, rgb, facts.size, signal);
    seen.predictions = probabilities(logits, facts.scores)
      .map((probability, index) => ({ index, label: facts.labels[index], probability }))
      .sort((a, b) => b.probability - a.probability)
      .slice(0, 5);
    return seen;
  }
}

function forgotten(error) {
  return new api.Problem({
    title: "The server no longer has this picture",
    detail: "pictures are kept for a limited time. Choose the file again, or pick a sample.",
    code: error.code,
    status: error.status,
  });
}

async function rgba(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}
