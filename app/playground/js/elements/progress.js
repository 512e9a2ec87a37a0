/** How a running request fares: its place in line, a bar of its steps with the guided ones marked, time left. */

import { h } from "../dom.js";
import { guidedSteps } from "../steps.js";

/** @import {Status, Values} from "../types" */

export class Progress extends HTMLElement {
  bar = h("div", { class: "steps", role: "progressbar", "aria-label": "Steps done", "aria-valuemin": 0 });
  words = h("span", { class: "words" });
  left = h("span", { class: "figure" });

  connectedCallback() {
    this.replaceChildren(this.bar, h("div", { class: "progress-line" }, this.words, this.left));
  }

  /** @param {Values | null} input the request's body, null when it is not known */
  begin(input) {
    const { num_inference_steps: steps = 8, control_start: start = 0, control_end: end = 1 } = input ?? {};
    this.draw(input?.image_url ? guidedSteps(steps, start, end) : Array(steps).fill(false));
    this.removeAttribute("data-moving");
    this.tell("Sending…", "", 0);
  }

  /** @param {boolean[]} guided */
  draw(guided) {
    this.bar.replaceChildren(...guided.map((lit) => h("span", { class: lit ? "step guided" : "step" })));
    this.bar.setAttribute("aria-valuemax", String(guided.length));
  }

  /**
   * Shows a status; its words.
   * @param {Status} status
   */
  update({ status, queue_position: ahead, step: done = 0, total_steps: total, seconds_left: seconds = 0 }) {
    if (total && this.bar.children.length !== total) this.draw(Array(total).fill(false));
    const left = seconds > 0 ? `about ${Math.ceil(seconds)} s left` : "";
    this.toggleAttribute("data-moving", status === "in_progress");
    if (status === "in_queue") return this.tell(queueWords(ahead), left, 0);
    if (done === 0) return this.tell("Reading the prompt", left, 0);
    if (done === total) return this.tell("Saving the picture", "", done);
    return this.tell(`Step ${done + 1} of ${total}`, left, done);
  }

  /**
   * @param {string} words
   * @param {string} left
   * @param {number} done
   */
  tell(words, left, done) {
    this.words.textContent = words;
    this.left.textContent = left;
    for (const [index, cell] of [...this.bar.children].entries()) {
      cell.classList.toggle("done", index < done);
      cell.classList.toggle("now", index === done);
    }
    this.bar.setAttribute("aria-valuenow", String(done));
    this.bar.setAttribute("aria-valuetext", words);
    return words;
  }
}

/** @param {number | undefined} ahead */
function queueWords(ahead) {
  if (!ahead) return "Next in line";
  return ahead === 1 ? "In line, 1 request ahead" : `In line, ${ahead} requests ahead`;
}

customElements.define("zt-progress", Progress);
