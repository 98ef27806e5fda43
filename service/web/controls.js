// What to show: stage, direction, heads, scale and how much of the picture shines through.

import { REDUCTIONS } from "./attention.js";
import { byId, make, radios, select } from "./dom.js";

export class Controls {
  constructor(state) {
    this.state = state;
    const set = (name) => (value) => state.set({ [name]: value });
    this.stage = radios(
      "stage",
      "Stage",
      [
        ["softmax", "softmax", "before heads are mixed"],
        ["reattention", "re-attention", "after heads are mixed: what multiplies V"],
      ],
      set("stage"),
    );
    this.direction = radios(
      "direction",
      "Direction",
      [
        ["from", "from query", "what the query looks at"],
        ["to", "to query", "what looks at the query"],
      ],
      set("direction"),
    );
    this.scale = radios(
      "scale",
      "Colours span",
      [
        ["map", "map"],
        ["block", "block"],
        ["all", "all"],
      ],
      set("scale"),
    );
    this.head = select("Heads", set("head"));
    this.head.control.id = "head";
    this.cls = make("button", { type: "button", id: "cls" }, "Class token");
    this.cls.addEventListener("click", () => state.set({ query: "cls" }));
    this.overlay = make("input", { type: "range", min: 0, max: 100, step: 5, id: "overlay-opacity" });
    this.overlay.addEventListener("input", () => state.set({ overlay: this.overlay.value }));
    const form = byId("controls");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.append(
      this.stage.element,
      this.direction.element,
      make("fieldset", { className: "radios" }, make("legend", {}, "Query"), this.cls),
      this.head.element,
      this.scale.element,
      make(
        "label",
        { className: "field", htmlFor: "overlay-opacity" },
        make("span", {}, "Map over picture"),
        this.overlay,
      ),
    );
  }

  draw(scene) {
    const { values } = this.state;
    const { facts } = scene;
    const heads = Array.from({ length: facts.heads }, (_, head) => [String(head), `head ${head}`]);
    this.head.options = [...Object.entries(REDUCTIONS), ...heads];
    this.head.value = scene.head;
    this.head.control.disabled = scene.rollout;
    this.stage.value = scene.stage;
    const mixes = facts.mixing.size > 0 && !scene.rollout;
    this.stage.enable("reattention", mixes);
    this.stage.element.title = scene.rollout
      ? "Rollout is defined on the softmax stage"
      : mixes
        ? ""
        : "This model does not mix heads: both stages are the same";
    this.direction.value = values.direction;
    this.scale.value = values.scale;
    this.cls.setAttribute("aria-pressed", String(scene.pinned === "cls"));
    this.overlay.value = values.overlay;
  }
}
