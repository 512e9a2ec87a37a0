/** How a running request fares: its place in line, a bar of its steps with the guided ones marked, time left. */

import { h } from "../dom.js";
import { guidedSteps, stepsDone } from "../steps.js";

/** @import {Status, Values} from "../types" */

const SECOND_MS = 1000;
/** Estimates from here on are told in minutes. */
const SHOWN_IN_SECONDS = 100;

export class Progress extends HTMLElement {
  bar = h("div", { class: "steps", role: "progressbar", "aria-label": "Steps done", "aria-valuemin": 0 });
  words = h("span", { class: "words" });
  left = h("span", { class: "figure" });
  /** When the picture is likely to be there; 0 while that is not known. A step may take minutes, and the server
   * tells of each: the seconds between are counted here. */
  due = 0;
  timer = 0;

  connectedCallback() {
    this.replaceChildren(this.bar, h("div", { class: "progress-line" }, this.words, this.left));
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  /** @param {Values | null} input the request's body, null when it is not known */
  begin(input) {
    const { num_inference_steps: all = 8, strength, control_start: start = 0, control_end: end = 1 } = input ?? {};
    const steps = stepsDone(all, strength);
    const guided = input?.image_url && input.control_scale > 0;
    this.draw(guided ? guidedSteps(steps, start, end) : Array(steps).fill(false));
    this.removeAttribute("data-moving");
    this.due = 0;
    this.tell("Sending…", 0);
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
  update({ status, queue_position: ahead, note, step: done = 0, total_steps: total, eta_seconds: seconds = 0 }) {
    if (total && this.bar.children.length !== total) this.draw(Array(total).fill(false));
    this.due = seconds && Date.now() + seconds * SECOND_MS;
    this.toggleAttribute("data-moving", status === "in_progress");
    if (status === "in_queue") return this.tell(note ?? queueWords(ahead), 0);
    if (done === 0) return this.tell("Reading the prompt", 0);
    if (done === total) return this.tell("Saving the picture", done);
    return this.tell(`Step ${done + 1} of ${total}`, done);
  }

  countDown() {
    const seconds = (this.due - Date.now()) / SECOND_MS;
    this.left.textContent = seconds > 0 ? `about ${duration(seconds)} left` : "";
    if (seconds <= 0) clearInterval(this.timer);
  }

  /**
   * @param {string} words
   * @param {number} done
   */
  tell(words, done) {
    this.words.textContent = words;
    clearInterval(this.timer);
    this.timer = setInterval(() => this.countDown(), SECOND_MS);
    this.countDown();
    for (const [index, cell] of [...this.bar.children].entries()) {
      cell.classList.toggle("done", index < done);
      cell.classList.toggle("now", index === done);
    }
    this.bar.setAttribute("aria-valuenow", String(done));
    this.bar.setAttribute("aria-valuetext", words);
    return words;
  }
}

/** @param {number} seconds */
function duration(seconds) {
  if (seconds < SHOWN_IN_SECONDS) return `${Math.ceil(seconds)} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @param {number | undefined} ahead */
function queueWords(ahead) {
  if (!ahead) return "Next in line";
  return ahead === 1 ? "In line, 1 request ahead" : `In line, ${ahead} requests ahead`;
}

customElements.define("zt-progress", Progress);
