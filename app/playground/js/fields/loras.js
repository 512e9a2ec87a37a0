/** Rows of LoRAs with their scales, and a picker of what is installed. */

import { announce, button, h, iconButton } from "../dom.js";
import { Field } from "./field.js";
import { inBytes } from "./filenames.js";
import { range } from "./range.js";

/** @typedef {{path: string, size: number, rank?: number, base_model?: string, trigger_words?: string[]}} Installed */
/** @typedef {{path: string, scale?: number}} Lora */
/** @typedef {{element: HTMLElement, path: HTMLInputElement, show: (entry: Lora) => void}} Row */

export class LorasField extends Field {
  /** @type {Map<string, Installed>} */
  installed = new Map();
  /** @type {Row[]} */
  rows = [];
  options = h("datalist", {});
  list = h("ol", { class: "loras" });
  count = h("span", { class: "figure" });
  add = button("plus", "Add a LoRA", () => this.addRow());

  build() {
    this.options.id = `${this.controlId}-installed`;
    this.append(...this.head("legend", this.count), this.options, this.list, this.add, this.fault);
    this.loadInstalled();
  }

  async loadInstalled() {
    /** @type {{loras: Installed[]}} */
    const { loras } = await this.api.get("v1/loras").catch(() => ({ loras: [] }));
    this.installed = new Map(loras.map((lora) => [lora.path, lora]));
    this.options.replaceChildren(...loras.map((lora) => h("option", { value: lora.path }, describe(lora))));
    this.refresh();
  }

  /** @returns {Lora[]} */
  get entries() {
    return Array.isArray(this.value) ? this.value : [];
  }

  get most() {
    return this.field.maxItems ?? Infinity;
  }

  addRow() {
    this.value = [...this.entries, { path: "", scale: 1 }];
    this.rows.at(-1)?.path.focus();
  }

  /** @param {number} index */
  removeRow(index) {
    this.value = this.entries.filter((_, each) => each !== index);
    this.add.focus();
    announce("The LoRA was removed.");
  }

  /**
   * @param {number} index
   * @param {Partial<Lora>} part
   */
  change(index, part) {
    this.value = this.entries.map((entry, each) => (each === index ? { ...entry, ...part } : entry));
  }

  refresh() {
    const { entries } = this;
    while (this.rows.length > entries.length) this.rows.pop()?.element.remove();
    while (this.rows.length < entries.length) this.rows.push(this.makeRow(this.rows.length));
    for (const [index, entry] of entries.entries()) this.rows[index].show(entry);
    this.add.disabled = entries.length >= this.most;
    this.count.textContent = this.most === Infinity ? "" : `${entries.length} of ${this.most}`;
  }

  /** @param {number} index */
  makeRow(index) {
    const { minimum = 0, maximum = 4 } = this.field.fields?.find((field) => field.name === "scale") ?? {};
    const path = h("input", {
      type: "text",
      list: this.options.id,
      placeholder: "Name, owner/repo or URL",
      spellcheck: false,
      autocomplete: "off",
      "aria-label": `LoRA ${index + 1}, path`,
    });
    path.addEventListener("input", () => this.change(index, { path: path.value.trim() }));
    const label = `LoRA ${index + 1}, scale`;
    const scaling = range({ label, minimum, maximum }, (value) => this.change(index, { scale: value }));
    const about = h("p", { class: "note lora-note" });
    const remove = iconButton("close", `Remove LoRA ${index + 1}`, () => this.removeRow(index));
    const element = h("li", { class: "lora" }, path, remove, scaling.element, about);
    this.list.append(element);
    const show = (/** @type {Lora} */ entry) => {
      if (path.value.trim() !== entry.path) path.value = entry.path;
      scaling.show(entry.scale ?? 1);
      this.tell(about, this.installed.get(entry.path));
    };
    return { element, path, show };
  }

  /**
   * What is known of an installed file; its trigger words go into the prompt by a click.
   * @param {HTMLElement} about
   * @param {Installed | undefined} lora
   */
  tell(about, lora) {
    if (about.dataset.path === (lora?.path ?? "")) return;
    about.dataset.path = lora?.path ?? "";
    const chip = (/** @type {string} */ word) =>
      h(
        "button",
        { type: "button", class: "chip", title: "Add to the prompt", onclick: () => this.addWord(word) },
        word,
      );
    about.replaceChildren(...(lora ? [describe(lora), ...(lora.trigger_words ?? []).map(chip)] : []));
  }

  /** @param {string} word */
  addWord(word) {
    const prompt = (this.draft.values.prompt ?? "").trim();
    if (!prompt.includes(word)) this.draft.set("prompt", prompt ? `${prompt}, ${word}` : word);
  }
}

/** @param {Installed} lora */
function describe({ size, rank, base_model: base }) {
  return [rank ? `rank ${rank}` : "", inBytes(size), base ?? ""].filter(Boolean).join(" · ");
}

customElements.define("zt-loras", LorasField);
