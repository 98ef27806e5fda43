// Makes elements from plain values; text is never parsed as HTML.

export const byId = (id) => document.getElementById(id);

/** An element with properties, grouped `data-*` and `aria-*` attributes, and children (elements or text). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name === "aria") for (const key in value) element.setAttribute(`aria-${key}`, value[key]);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * Let maps inside an element have a picture's proportions (width by height), in CSS as --aspect, and
 * --spread: the width of a rectangle by the side of a square of the same area, within limits.
 */
export function setAspect(element, aspect) {
  element.style.setProperty("--aspect", aspect);
  element.style.setProperty("--spread", Math.min(2, Math.max(0.85, Math.sqrt(aspect))));
}

/** A group of radio buttons shown as one control; options are [value, text, tooltip]. */
export function radios(name, legend, options, onChange) {
  const set = make("fieldset", { className: "radios" }, make("legend", {}, legend));
  for (const [value, text, title] of options) {
    const input = make("input", { type: "radio", name, value });
    input.addEventListener("change", () => onChange(value));
    set.append(make("label", { title: title ?? "" }, input, make("span", {}, text)));
  }
  return {
    element: set,
    set value(chosen) {
      for (const input of set.querySelectorAll("input")) input.checked = input.value === chosen;
    },
    enable(value, on) {
      for (const input of set.querySelectorAll("input")) if (input.value === value) input.disabled = !on;
    },
  };
}

/** A select with a label; options are [value, text]. */
export function select(label, onChange) {
  const control = make("select");
  control.addEventListener("change", () => onChange(control.value));
  let shown = "";
  return {
    element: make("label", { className: "field" }, make("span", {}, label), control),
    control,
    set options(options) {
      const key = JSON.stringify(options);
      if (key === shown) return;
      shown = key;
      control.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    },
    set value(chosen) {
      control.value = chosen;
    },
  };
}

let saying = 0;

/** Announce text to screen reader users, but only the last one of a quick succession. */
export function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => {
    byId("live").textContent = text;
  }, 250);
}
