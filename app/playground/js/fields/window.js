/** `control_start` and `control_end` as two handles over the steps, the guided ones lit. */

import { h } from "../dom.js";
import { describeSteps, guidedSteps, stepsDone } from "../steps.js";
import { Field } from "./field.js";

const NOTCH = 0.01;

export class WindowField extends Field {
  start = this.handle("control_start", "Guide from here");
  end = this.handle("control_end", "Guide up to here");
  cells = h("div", { class: "cells", "aria-hidden": "true" });
  words = h("output", { class: "figure" });
  note = h("span", { class: "note" });

  build() {
    const group = { class: "window", role: "group", "aria-labelledby": `${this.controlId}-name` };
    const line = h("div", group, this.cells, this.start, this.end);
    this.append(...this.head("legend", this.words), line, this.note, this.fault);
  }

  /**
   * @param {"control_start" | "control_end"} name
   * @param {string} label
   */
  handle(name, label) {
    const input = h("input", { type: "range", min: 0, max: 1, step: NOTCH, "aria-label": label, id: `field-${name}` });
    input.addEventListener("input", () => this.move(name, input.valueAsNumber));
    return input;
  }

  /**
   * The handles push each other: the window never runs backward.
   * @param {"control_start" | "control_end"} name
   * @param {number} value
   */
  move(name, value) {
    const { values } = this.draft;
    const start = name === "control_start" ? value : Math.min(values.control_start, value);
    const end = name === "control_end" ? value : Math.max(values.control_end, value);
    this.draft.replace({ ...values, control_start: start, control_end: end });
  }

  refresh() {
    const {
      control_start: start = 0,
      control_end: end = 1,
      num_inference_steps: all = 8,
      strength,
    } = this.draft.values;
    const guided = guidedSteps(stepsDone(all, strength), start, end);
    const cells = guided.map((lit, index) => h("span", { class: lit ? "cell lit" : "cell" }, String(index + 1)));
    this.cells.replaceChildren(...cells);
    for (const [input, value] of /** @type {[HTMLInputElement, number][]} */ ([
      [this.start, start],
      [this.end, end],
    ])) {
      input.value = String(value);
      input.setAttribute("aria-valuetext", `${Math.round(value * 100)} percent. ${describeSteps(guided)}`);
    }
    // Of two handles in one place, the one that can still move must be on top.
    this.start.classList.toggle("above", start > 0.5);
    this.words.textContent = `${start.toFixed(2)} – ${end.toFixed(2)}`;
    this.note.textContent = `${describeSteps(guided)} by the ${strength === undefined ? "control image" : "image"}`;
  }
}

customElements.define("zt-window", WindowField);
