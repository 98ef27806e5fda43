// The display options: stage, direction, query, heads, colour range and overlay opacity.

import { homeOf, REDUCTIONS } from "./attention.js";
import { byId, make, radios, select } from "./dom.js";

export class Controls {
  constructor(state) {
    this.state = state;
    const set = (name) => (value) => state.set({ [name]: value });
    this.stage = radios(
      "stage",
      "Stage",
      [
        ["softmax", "softmax", "before re-attention mixes the heads"],
        ["reattention", "re-attention", "after re-attention mixes the heads: the map that multiplies V"],
      ],
      set("stage"),
    );
    this.direction = radios(
      "direction",
      "Direction",
      [
        ["from", "from query", "what the query attends to"],
        ["to", "to query", "what attends to the query"],
      ],
      set("direction"),
    );
    this.scale = radios(
      "scale",
      "Colour range",
      [
        ["map", "map", "each map has its own range"],
        ["block", "block", "all heads of a block share a range"],
        ["all", "all", "all blocks and heads share a range"],
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
        make("span", {}, "Overlay opacity"),
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
    const mixesHeads = facts.mixing.size > 0 && !scene.rollout;
    this.stage.enable("reattention", mixesHeads);
    this.stage.element.title = scene.rollout
      ? "Rollout is defined on the softmax stage"
      : mixesHeads
        ? ""
        : "This model has no re-attention: both stages are the same";
    this.direction.value = values.direction;
    this.scale.value = values.scale;
    this.cls.textContent = facts.classToken ? "Class token" : "Middle patch";
    this.cls.setAttribute("aria-pressed", String(scene.pinned === homeOf(facts)));
    this.overlay.value = values.overlay;
  }
}
