/** What every field of the form has: a label, a hint behind a question mark, its fault, and the draft's value. */

import { h, icon } from "../dom.js";

/** Subclasses make their controls in `build()` and bring them up to date in `refresh()`. */
export class Field extends HTMLElement {
  /** Before the element enters the page. `context`: {api, draft, history, onExample()}. */
  setup(field, context) {
    this.field = field;
    Object.assign(this, context);
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

  get value() {
    return this.draft.values[this.field.name];
  }

  set value(value) {
    this.draft.set(this.field.name, value);
  }

  get controlId() {
    return `field-${this.field.name}`;
  }

  /** The label line; `aside` goes to its end. `tag` is "label", or "legend" for a group of controls. */
  head(tag = "label", ...aside) {
    const hint = h("p", { class: "hint", id: `${this.controlId}-hint`, hidden: true }, this.field.description);
    const toggle = h(
      "button",
      {
        type: "button",
        class: "ask",
        "aria-label": `About ${this.field.title}`,
        "aria-expanded": "false",
        "aria-controls": hint.id,
        onclick: () => {
          hint.hidden = !hint.hidden;
          toggle.setAttribute("aria-expanded", String(!hint.hidden));
        },
      },
      icon("help"),
    );
    const label =
      tag === "label"
        ? h("label", { class: "name", htmlFor: this.controlId }, this.field.title)
        : h("span", { class: "name", id: `${this.controlId}-name` }, this.field.title);
    return [h("div", { class: "head" }, label, this.field.description ? toggle : "", h("span", { class: "aside" }, ...aside)), hint];
  }

  /** Where `showFault` writes. */
  faultLine() {
    this.fault = h("p", { class: "fault", id: `${this.controlId}-fault`, hidden: true });
    return this.fault;
  }

  showFault() {
    const message = this.draft.faults.get(this.field.name);
    if (!this.fault) return;
    this.fault.textContent = message ?? "";
    this.fault.hidden = !message;
    const control = this.querySelector(`#${this.controlId}`);
    control?.toggleAttribute("aria-invalid", Boolean(message));
    if (message) control?.setAttribute("aria-describedby", this.fault.id);
    else control?.removeAttribute("aria-describedby");
  }
}
