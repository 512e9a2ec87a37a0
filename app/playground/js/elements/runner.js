/** Run, Stop and Reset, and what keeps a request from being taken. */

import { h, icon } from "../dom.js";

/** Fires `run`, `stop` and `reset`. */
export class Runner extends HTMLElement {
  connectedCallback() {
    this.message = h("p", { class: "run-message", role: "alert" });
    this.run = h(
      "button",
      { type: "button", class: "primary", onclick: () => this.dispatchEvent(new Event("run")) },
      "Run",
      h("kbd", {}, /Mac|iP/.test(navigator.platform) ? "⌘ ↵" : "Ctrl ↵"),
    );
    this.stop = h(
      "button",
      { type: "button", class: "primary halt", hidden: true, onclick: () => this.dispatchEvent(new Event("stop")) },
      icon("stop"),
      "Stop",
    );
    this.reset = h("button", { type: "button", class: "quiet", onclick: () => this.dispatchEvent(new Event("reset")) }, icon("restore"), "Reset");
    this.replaceChildren(this.message, h("div", { class: "run-line" }, this.run, this.stop, this.reset));
    addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || this.running || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.dispatchEvent(new Event("run"));
    });
  }

  /** Keeps the focus on the one button that both are to the user. */
  set running(running) {
    const focused = this.contains(document.activeElement);
    this.run.hidden = running;
    this.stop.hidden = !running;
    this.stop.disabled = false;
    if (focused) (running ? this.stop : this.run).focus();
  }

  get running() {
    return this.run.hidden;
  }

  say(message) {
    this.message.textContent = message;
  }
}

customElements.define("zt-runner", Runner);
