/** The seed: open, the server draws one for each run; locked, every run takes the number that stands here. */

import { h, icon, iconButton } from "../dom.js";
import { drawn } from "../draft.js";
import { Field } from "./field.js";

const MOST = 2 ** 32;

export class SeedField extends Field {
  build() {
    this.input = h("input", { id: this.controlId, type: "number", min: 0, step: 1, placeholder: "drawn anew each run" });
    this.input.addEventListener("input", () => {
      this.value = this.input.value === "" ? drawn(this.field) : Math.trunc(this.input.valueAsNumber);
    });
    this.dice = iconButton("dice", "Throw the dice: another fixed seed", () => (this.value = throwDice()));
    this.lock = iconButton("open", "Lock the seed", () => (this.value = this.locked ? drawn(this.field) : this.draft.lastSeed ?? throwDice()), {
      "aria-pressed": "false",
    });
    this.append(...this.head(), h("div", { class: "joined" }, this.input, this.dice, this.lock), this.faultLine());
  }

  get locked() {
    return this.value !== drawn(this.field);
  }

  refresh() {
    const shown = this.locked ? String(this.value) : "";
    if (this.input.value !== shown) this.input.value = shown;
    if (this.lock.ariaPressed !== String(this.locked)) {
      this.lock.setAttribute("aria-pressed", String(this.locked));
      this.lock.title = this.locked ? "Locked: every run takes this seed" : "Open: every run draws a seed";
      this.lock.replaceChildren(icon(this.locked ? "locked" : "open"));
    }
  }
}

const throwDice = () => Math.floor(Math.random() * MOST);

customElements.define("zt-seed", SeedField);
