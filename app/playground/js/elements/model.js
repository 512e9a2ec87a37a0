/** Which model: what it takes, in words; where Run would take another one, which; what other programs call it. */

import { copyIcon, h } from "../dom.js";
import { takes } from "../models.js";

/** @import {Dialect, Model} from "../types" */

/** Fires `change`; `value` is the chosen model's id. */
export class ModelChoice extends HTMLElement {
  value = "";
  note = h("p", { class: "note", id: "model-note" });
  names = h("dl", { class: "dialects" });
  called = h("details", { class: "called" }, h("summary", {}, "What other programs call it"), this.names);

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
    this.names.replaceChildren(...chosen.dialects.map((each) => row(chosen, each)));
    this.replaceChildren(select, this.note, this.called);
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
 * @param {Model} model
 * @param {Dialect} dialect
 */
function row({ id }, { dialect, model, path }) {
  const route = path.replace(model, "…").replace(id, "…");
  const copy = copyIcon(() => model, `Copy what ${dialect} calls it`);
  return h(
    "div",
    {},
    h("dt", {}, dialect, h("span", { class: "note" }, `POST ${route}`)),
    h("dd", {}, h("code", {}, model), copy),
  );
}

/**
 * How many models take the same.
 * @param {Model[]} models
 * @param {Model} model
 */
const alike = (models, model) => models.filter((each) => takes(each) === takes(model)).length;

customElements.define("zt-model", ModelChoice);
