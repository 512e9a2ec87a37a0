/** How a running request fares: its place in line, a bar of its steps with the guided ones marked, time left. */

import { h } from "../dom.js";
import { guidedSteps } from "../steps.js";

export class Progress extends HTMLElement {
  connectedCallback() {
    this.bar = h("div", { class: "steps", role: "progressbar", "aria-label": "Steps done", "aria-valuemin": 0 });
    this.words = h("span", { class: "words" });
    this.left = h("span", { class: "figure" });
    this.replaceChildren(this.bar, h("div", { class: "progress-line" }, this.words, this.left));
  }

  /** `input`: the request's body, null when it is not known. */
  begin(input) {
    const steps = input?.num_inference_steps ?? 8;
    this.draw(input ? guidedSteps(steps, input.control_start ?? 0, input.control_end ?? 1) : Array(steps).fill(false));
    this.removeAttribute("data-moving");
    this.tell("Sending…", "", 0);
  }

  draw(guided) {
    this.bar.replaceChildren(...guided.map((lit) => h("span", { class: lit ? "step guided" : "step" })));
    this.bar.setAttribute("aria-valuemax", guided.length);
  }

  /** A status of `follow`. Returns its words. */
  update({ status, queue_position: ahead, step, total_steps: total, seconds_left: seconds }) {
    if (total && this.bar.children.length !== total) this.draw(Array(total).fill(false));
    const left = seconds > 0 ? `about ${Math.ceil(seconds)} s left` : "";
    const done = step ?? 0;
    this.toggleAttribute("data-moving", status === "in_progress");
    if (status === "in_queue") return this.tell(queueWords(ahead), left, 0);
    if (done === 0) return this.tell("Reading the prompt", left, 0);
    if (done === total) return this.tell("Saving the picture", "", done);
    return this.tell(`Step ${done + 1} of ${total}`, left, done);
  }

  tell(words, left, done) {
    this.words.textContent = words;
    this.left.textContent = left;
    for (const [index, cell] of [...this.bar.children].entries()) {
      cell.classList.toggle("done", index < done);
      cell.classList.toggle("now", index === done);
    }
    this.bar.setAttribute("aria-valuenow", done);
    this.bar.setAttribute("aria-valuetext", words);
    return words;
  }
}

function queueWords(ahead) {
  if (!ahead) return "Next in line";
  return ahead === 1 ? "In line, 1 request ahead" : `In line, ${ahead} requests ahead`;
}

customElements.define("zt-progress", Progress);
