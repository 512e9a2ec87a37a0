/** The seed: open, the server draws one for each run; locked, every run takes the number that stands here. */

import { h, icon, iconButton } from "../dom.js";
import { drawn } from "../draft.js";
import { integer } from "../json.js";
import { Field } from "./field.js";

const MOST = 2 ** 32;

export class SeedField extends Field {
  // Text: a number field rounds what is longer than a number.
  input = h("input", { type: "text", inputMode: "numeric", placeholder: "random", autocomplete: "off" });
  dice = iconButton("dice", "Random seed, and keep it", () => {
    this.value = throwDice();
  });
  lock = iconButton("open", "Lock the seed", () => this.turn(), { "aria-pressed": "false" });

  build() {
    this.input.id = this.controlId;
    this.input.addEventListener("input", () => {
      const digits = this.input.value.trim();
      if (digits === "") this.value = drawn(this.field);
      else if (/^\d+$/.test(digits)) this.value = integer(digits);
      else this.draft.setFaults([[this.field.name, "A seed is a whole number, 0 or more."]]);
    });
    this.append(...this.head(), h("div", { class: "joined" }, this.input, this.dice, this.lock), this.fault);
  }

  turn() {
    this.value = this.locked ? drawn(this.field) : (this.draft.lastSeed ?? throwDice());
  }

  get locked() {
    return this.value !== drawn(this.field);
  }

  refresh() {
    const shown = this.locked ? String(this.value) : "";
    if (this.input.value !== shown) this.input.value = shown;
    if (this.lock.ariaPressed === String(this.locked)) return;
    this.lock.setAttribute("aria-pressed", String(this.locked));
    this.lock.title = this.locked ? "Locked: every run takes this seed" : "Open: every run draws a random seed";
    this.lock.replaceChildren(icon(this.locked ? "locked" : "open"));
  }
}

const throwDice = () => Math.floor(Math.random() * MOST);

customElements.define("zt-seed", SeedField);
