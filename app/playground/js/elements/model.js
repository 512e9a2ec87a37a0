/** Which model: its name, and a choice where the server has several. */

import { h } from "../dom.js";

/** Fires `change`; `value` is the chosen model id. */
export class ModelChoice extends HTMLElement {
  show(models, modelId) {
    if (models.length === 1) {
      this.replaceChildren(h("span", { class: "note", title: modelId }, models[0].display_name));
      return;
    }
    const select = h("select", { "aria-label": "Model" }, ...models.map((model) => h("option", { value: model.model_id }, model.display_name)));
    select.value = modelId;
    select.addEventListener("change", () => {
      this.value = select.value;
      this.dispatchEvent(new Event("change"));
    });
    this.replaceChildren(select);
  }
}

customElements.define("zt-model", ModelChoice);
