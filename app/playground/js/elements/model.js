/** Which model: what it takes, in words; where Run would take another one, which. */

import { h } from "../dom.js";
import { takes } from "../models.js";

/** @import {Model} from "../types" */

/** Fires `change`; `value` is the chosen model's id. */
export class ModelChoice extends HTMLElement {
  value = "";
  note = h("p", { class: "note", id: "model-note" });

  /**
   * @param {Model[]} models
   * @param {Model} chosen
   */
  show(models, chosen) {
    const words = (/** @type {Model} */ model) => (alike(models, model) > 1 ? model.name : takes(model));
    const options = models.map((model) => h("option", { value: model.id, title: model.id }, words(model)));
    const select = h("select", { "aria-label": "Model", "aria-describedby": this.note.id }, ...options);
    select.value = chosen.id;
    select.hidden = models.length === 1;
    select.addEventListener("change", () => {
      this.value = select.value;
      this.dispatchEvent(new Event("change"));
    });
    this.replaceChildren(select, this.note);
  }

  /**
   * @param {Model} chosen
   * @param {Model} taken the one that Run would take
   */
  tell(chosen, taken) {
    this.note.textContent = taken === chosen ? chosen.name : `No image yet, so ${taken.name} draws it.`;
  }
}

/**
 * How many models take the same.
 * @param {Model[]} models
 * @param {Model} model
 */
const alike = (models, model) => models.filter((each) => takes(each) === takes(model)).length;

customElements.define("zt-model", ModelChoice);
