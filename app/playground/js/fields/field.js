/** What every field of the form has: a label, a hint behind a question mark, its fault, and the draft's value. */

import { announce, h, icon } from "../dom.js";
import { titleOf } from "./words.js";

/** @import {Api} from "../api.js" */
/** @import {Draft} from "../draft.js" */
/** @import {Context, Field as FieldFacts} from "../types" */

/** Subclasses make their controls in `build()` and bring them up to date in `refresh()`. */
export class Field extends HTMLElement {
  /** @type {FieldFacts} */
  field;
  /** @type {Api} */
  api;
  /** @type {Draft} */
  draft;
  listening = new AbortController();
  fault = h("p", { class: "fault", hidden: true });

  /**
   * Before the element enters the page.
   * @param {FieldFacts} field
   * @param {Context} context
   */
  setup(field, { api, draft }) {
    this.field = field;
    this.api = api;
    this.draft = draft;
    this.fault.id = `${this.controlId}-fault`;
    return this;
  }

  connectedCallback() {
    this.listening = new AbortController();
    const { signal } = this.listening;
    this.replaceChildren();
    this.build();
    this.draft.addEventListener("change", () => this.refresh(), { signal });
    this.draft.addEventListener("faults", () => this.showFault(), { signal });
    this.refresh();
    this.showFault();
  }

  disconnectedCallback() {
    this.listening.abort();
  }

  build() {}

  refresh() {}

  /** @returns {any} */
  get value() {
    return this.draft.values[this.field.name];
  }

  set value(value) {
    this.draft.set(this.field.name, value);
  }

  get controlId() {
    return `field-${this.field.name}`;
  }

  /**
   * The label line; `aside` goes to its end. `tag` is "label", or "legend" for a group of controls.
   * @param {"label" | "legend"} tag
   * @param {(Node | string)[]} aside
   */
  head(tag = "label", ...aside) {
    const { name, description } = this.field;
    const title = titleOf(this.field);
    const called = h("span", {}, " In a request it is called ", h("code", {}, name), ".");
    const hint = h("p", { class: "hint", id: `${this.controlId}-hint`, hidden: true }, description, called);
    const ask = { type: "button", class: "ask", "aria-label": `About: ${title}`, "aria-controls": hint.id };
    const toggle = h("button", { ...ask, "aria-expanded": "false" }, icon("help"));
    toggle.addEventListener("click", () => {
      hint.hidden = !hint.hidden;
      toggle.setAttribute("aria-expanded", String(!hint.hidden));
    });
    const label =
      tag === "label"
        ? h("label", { class: "name", htmlFor: this.controlId }, title)
        : h("span", { class: "name", id: `${this.controlId}-name` }, title);
    return [h("div", { class: "head" }, label, toggle, h("span", { class: "aside" }, ...aside)), hint];
  }

  showFault() {
    const message = this.draft.faults.get(this.field.name);
    if (message && message !== this.fault.textContent) announce(message);
    this.fault.textContent = message ?? "";
    this.fault.hidden = !message;
    const control = this.querySelector(`#${this.controlId}`);
    control?.toggleAttribute("aria-invalid", Boolean(message));
    if (message) control?.setAttribute("aria-describedby", this.fault.id);
    else control?.removeAttribute("aria-describedby");
  }
}
