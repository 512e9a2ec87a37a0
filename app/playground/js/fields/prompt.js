/** The prompt, with Magic Prompt under it where the model has `enable_prompt_expansion`. */

import { saying } from "../api.js";
import { announce, button, h, icon } from "../dom.js";
import { Field } from "./field.js";

const EXPANSION = "enable_prompt_expansion";

export class PromptField extends Field {
  input = h("textarea", { rows: 4, class: "prompt" });
  magic = h("input", { type: "checkbox", role: "switch", class: "switch", id: `field-${EXPANSION}` });
  expand = button("wand", "Expand now", () => this.expandNow());

  build() {
    this.input.id = this.controlId;
    this.input.placeholder = this.field.example ?? "";
    this.input.addEventListener("input", () => {
      this.value = this.input.value;
    });
    this.append(...this.head(), this.input, this.fault);
    const expansion = this.draft.field(EXPANSION);
    if (expansion) this.append(this.buildMagic(expansion.description));
  }

  /** @param {string} title */
  buildMagic(title) {
    this.magic.addEventListener("change", () => this.draft.set(EXPANSION, this.magic.checked));
    const label = h("label", { htmlFor: this.magic.id, title }, icon("wand"), "Magic Prompt");
    return h("div", { class: "magic" }, this.magic, label, this.expand);
  }

  /** Puts the expanded prompt in the place of the prompt; Ctrl+Z takes it back. */
  async expandNow() {
    this.expand.disabled = true;
    this.expand.classList.add("waiting");
    try {
      const { seed = -1 } = this.draft.values;
      const asked = seed < 0 ? { prompt: this.value } : { prompt: this.value, seed };
      const { expanded_prompt: expanded, warning } = await this.api.post("v1/expand", asked);
      if (warning) this.draft.setFaults([[this.field.name, warning]]);
      if (expanded) this.typeOver(expanded);
    } catch (error) {
      this.draft.setFaults([[this.field.name, saying(error)]]);
    } finally {
      this.expand.disabled = false;
      this.expand.classList.remove("waiting");
    }
  }

  /** @param {string} text */
  typeOver(text) {
    this.input.focus();
    this.input.select();
    // Deprecated, and the only way that leaves the browser's undo history whole.
    document.execCommand("insertText", false, text);
    announce("The prompt was expanded.");
  }

  refresh() {
    if (this.input.value !== (this.value ?? "")) this.input.value = this.value ?? "";
    this.magic.checked = Boolean(this.draft.values[EXPANSION]);
    if (!this.expand.classList.contains("waiting")) this.expand.disabled = !this.input.value.trim();
  }
}

customElements.define("zt-prompt", PromptField);
