/** The prompt, with Magic Prompt under it where the model has `enable_prompt_expansion`. */

import { announce, h, icon } from "../dom.js";
import { Field } from "./field.js";

const EXPANSION = "enable_prompt_expansion";

export class PromptField extends Field {
  build() {
    this.input = h("textarea", { id: this.controlId, rows: 4, placeholder: this.field.example ?? "", class: "prompt" });
    this.input.addEventListener("input", () => (this.value = this.input.value));
    this.example = h("button", { type: "button", class: "quiet small example", onclick: () => this.onExample() }, icon("spark"), "Run an example");
    this.append(...this.head("label", this.example), this.input, this.faultLine());
    if (this.field.name === "prompt" && this.draft.field(EXPANSION)) this.append(this.buildMagic());
  }

  buildMagic() {
    this.magic = h("input", { type: "checkbox", role: "switch", class: "switch", id: `field-${EXPANSION}` });
    this.magic.addEventListener("change", () => this.draft.set(EXPANSION, this.magic.checked));
    const line = h(
      "div",
      { class: "magic" },
      this.magic,
      h("label", { htmlFor: this.magic.id, title: this.draft.field(EXPANSION).description }, icon("spark"), "Magic Prompt"),
    );
    if (this.api.has("/v1/expand")) {
      this.expand = h("button", { type: "button", class: "quiet", onclick: () => this.expandNow() }, icon("wand"), "Expand now");
      line.append(this.expand);
    }
    return line;
  }

  /** Puts the expanded prompt in the place of the prompt; Ctrl+Z takes it back. */
  async expandNow() {
    if (!this.input.value.trim()) return this.input.focus();
    this.expand.disabled = true;
    this.expand.classList.add("waiting");
    try {
      const seed = Math.max(0, this.draft.values.seed ?? 0);
      const { expanded_prompt: expanded, warning } = await this.api.post("v1/expand", { prompt: this.value, seed });
      if (warning) this.draft.setFaults([[this.field.name, warning]]);
      if (expanded) this.typeOver(expanded);
    } catch (error) {
      this.draft.setFaults([[this.field.name, error.message]]);
    } finally {
      this.expand.disabled = false;
      this.expand.classList.remove("waiting");
    }
    return undefined;
  }

  typeOver(text) {
    this.input.focus();
    this.input.select();
    // Deprecated, and the only way that leaves the browser's undo history whole.
    document.execCommand("insertText", false, text);
    announce("The prompt was expanded.");
  }

  refresh() {
    if (this.input.value !== (this.value ?? "")) this.input.value = this.value ?? "";
    this.example.hidden = this.field.name !== "prompt" || Boolean(this.value);
    if (this.magic) this.magic.checked = Boolean(this.draft.values[EXPANSION]);
    if (this.expand && !this.expand.classList.contains("waiting")) this.expand.disabled = !this.input.value.trim();
  }
}

customElements.define("zt-prompt", PromptField);
