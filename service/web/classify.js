// How a picture gets into the page (drop, paste, file, camera or sample), and its predictions.

import { byId, make } from "./dom.js";
import { SAMPLES } from "./samples/samples.js";

const folder = new URL("samples/", import.meta.url);

/** `onPicture({ blob, name, sample })` is called with every picture. */
export function listenForPictures(onPicture) {
  const drop = byId("drop");
  for (const id of ["file", "camera"])
    byId(id).addEventListener("change", ({ target }) => {
      if (target.files.length) onPicture({ blob: target.files[0], name: target.files[0].name });
      target.value = "";
    });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) onPicture({ blob: file, name: file.name });
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) onPicture({ blob: file, name: "pasted picture" });
  });
  byId("samples").replaceChildren(
    ...SAMPLES.map(({ name, text }) => {
      const picture = make("img", {
        src: new URL(`${name}.jpg`, folder).href,
        alt: text,
        width: 120,
        height: 80,
      });
      const button = make(
        "button",
        { type: "button", data: { sample: name } },
        picture,
        make("span", {}, name),
      );
      button.addEventListener("click", async () => onPicture(await sample(name)));
      return make("li", {}, button);
    }),
  );
  byId("credits").textContent =
    `Photographs: ${SAMPLES.map(({ name, credit }) => `${name}, ${credit}`).join("; ")}.`;
}

/** A bundled photograph by its name, or null. */
export async function sample(name) {
  if (!SAMPLES.some((one) => one.name === name)) return null;
  const response = await fetch(new URL(`${name}.jpg`, folder));
  return { blob: await response.blob(), name, sample: name };
}

export function markSample(name) {
  for (const button of byId("samples").querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.dataset.sample === name));
}

export function showPredictions(list, predictions) {
  list.replaceChildren(
    ...predictions.map(({ label, probability }) => {
      const bar = make("span", { className: "bar-fill", aria: { hidden: "true" } });
      bar.style.width = `${100 * probability}%`;
      return make(
        "li",
        { data: { label, probability } },
        make("span", { className: "label" }, label),
        make("span", { className: "bar-track" }, bar),
        make("span", { className: "share" }, `${(100 * probability).toFixed(1)}%`),
      );
    }),
  );
}
