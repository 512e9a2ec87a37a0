/** Run, Stop and Reset, and what keeps a request from being taken. */

import { button, h } from "../dom.js";

/** Fires `run`, `stop` and `reset`. */
export class Runner extends HTMLElement {
  message = h("p", { class: "run-message", role: "alert" });
  run = h(
    "button",
    { type: "button", class: "primary" },
    "Run",
    h("kbd", {}, /Mac|iP/.test(navigator.platform) ? "⌘ ↵" : "Ctrl ↵"),
  );
  stop = button("stop", "Stop", () => this.fire("stop"), { class: "quiet halt", hidden: true });

  connectedCallback() {
    this.run.addEventListener("click", () => this.fire("run"));
    const reset = button("restore", "Reset", () => this.fire("reset"), { title: "Every field as it was at first" });
    this.replaceChildren(this.message, h("div", { class: "run-line" }, this.run, this.stop, reset));
    addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      if (!this.run.disabled) this.fire("run");
    });
  }

  /** @param {string} name */
  fire(name) {
    this.dispatchEvent(new Event(name));
  }

  /** @param {boolean} sending a request is on its way: a second click is a slip of the hand */
  set sending(sending) {
    const focused = this.run === document.activeElement;
    this.run.disabled = sending;
    if (focused && !sending) this.run.focus();
  }

  /** @param {boolean} watching a run is on the stage, which Stop stops */
  set watching(watching) {
    if (this.stop === document.activeElement && !watching) this.run.focus();
    this.stop.hidden = !watching;
  }

  /** @param {string} message */
  say(message) {
    this.message.textContent = message;
  }
}

customElements.define("zt-runner", Runner);
