// Tells the user what went wrong, and what is loading, with a way to cancel it.

import { byId, make } from "./dom.js";
import { formatMegabytes } from "./format.js";

let countdown = 0;

/** Show a problem; `retry` is offered once the server's Retry-After has passed. */
export function showProblem(error, retry = null) {
  clearInterval(countdown);
  const notice = byId("notice");
  notice.hidden = false;
  notice.className = "notice";
  const title = error.title ?? "Something went wrong in this page";
  const detail = error.title ? error.detail : String(error.message ?? error);
  const children = [make("strong", {}, title), make("p", {}, detail)];
  if (retry) {
    const button = make("button", { type: "button" }, "Try again");
    button.addEventListener("click", () => {
      hideProblem();
      retry();
    });
    if (error.retryAfterS) wait(button, error.retryAfterS, children);
    children.push(button);
  }
  const close = make("button", { type: "button", className: "close", aria: { label: "Dismiss" } }, "×");
  close.addEventListener("click", hideProblem);
  notice.replaceChildren(...children, close);
}

function wait(button, seconds, children) {
  let left = seconds;
  children.push(make("p", {}, `The server asks to wait ${seconds} s before trying again.`));
  button.disabled = true;
  button.textContent = `Try again in ${left} s`;
  countdown = setInterval(() => {
    left -= 1;
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left <= 0) clearInterval(countdown);
  }, 1000);
}

export function hideProblem() {
  clearInterval(countdown);
  byId("notice").hidden = true;
  byId("notice").replaceChildren();
}

/** Show what the loader is loading, or that the user stopped it. */
export function showProgress(loader) {
  const place = byId("progress");
  const { active, failure } = loader;
  if (failure?.stopped) {
    const again = make("button", { type: "button" }, "Load");
    again.addEventListener("click", () => loader.retry());
    place.replaceChildren(make("span", {}, `Stopped loading ${failure.description}.`), again);
    place.hidden = false;
    return;
  }
  place.hidden = !active;
  if (!active) {
    place.dataset.key = "";
    return;
  }
  if (place.dataset.key !== active.key) {
    const cancel = make("button", { type: "button" }, "Cancel");
    cancel.addEventListener("click", () => loader.cancel());
    place.dataset.key = active.key;
    place.replaceChildren(
      make("span", {}, `Loading ${active.description}`),
      make("progress", { aria: { label: "Loading" } }),
      make("span", { className: "quiet" }),
      cancel,
    );
  }
  if (active.total) {
    const bar = place.querySelector("progress");
    bar.max = active.total;
    bar.value = active.loaded;
    const [loaded, total] = [active.loaded, active.total].map(formatMegabytes);
    place.querySelector(".quiet").textContent = `${loaded} of ${total}`;
  }
}
