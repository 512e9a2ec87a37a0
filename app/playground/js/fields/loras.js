/** Rows of LoRAs with their scales, and a picker of what is installed. */

import { h, icon, iconButton, announce } from "../dom.js";
import { Field } from "./field.js";
import { range } from "./range.js";

export class LorasField extends Field {
  build() {
    this.installed = new Map();
    this.options = h("datalist", { id: `${this.controlId}-installed` });
    this.list = h("ol", { class: "loras" });
    this.rows = [];
    this.count = h("span", { class: "figure" });
    this.add = h("button", { type: "button", class: "quiet", onclick: () => this.addRow() }, icon("plus"), "Add a LoRA");
    this.append(...this.head("legend", this.count), this.options, this.list, this.add, this.faultLine());
    this.loadInstalled();
  }

  async loadInstalled() {
    if (!this.api.has("/v1/loras")) return;
    const { loras } = await this.api.get("v1/loras").catch(() => ({ loras: [] }));
    this.installed = new Map(loras.map((lora) => [lora.path, lora]));
    this.options.replaceChildren(...loras.map((lora) => h("option", { value: lora.path }, describe(lora))));
    this.refresh();
  }

  get entries() {
    return Array.isArray(this.value) ? this.value : [];
  }

  get most() {
    return this.field.maxItems ?? Infinity;
  }

  addRow() {
    this.value = [...this.entries, { path: "", scale: 1 }];
    this.rows.at(-1).path.focus();
  }

  removeRow(index) {
    this.value = this.entries.filter((_, each) => each !== index);
    this.add.focus();
    announce("The LoRA was removed.");
  }

  change(index, part) {
    this.value = this.entries.map((entry, each) => (each === index ? { ...entry, ...part } : entry));
  }

  refresh() {
    const { entries } = this;
    while (this.rows.length > entries.length) this.rows.pop().element.remove();
    while (this.rows.length < entries.length) this.rows.push(this.makeRow(this.rows.length));
    for (const [index, entry] of entries.entries()) this.rows[index].show(entry);
    this.add.disabled = entries.length >= this.most;
    this.count.textContent = this.most === Infinity ? "" : `${entries.length} of ${this.most}`;
  }

  makeRow(index) {
    const scale = this.field.fields?.find((field) => field.name === "scale") ?? { minimum: 0, maximum: 4 };
    const path = h("input", {
      type: "text",
      list: this.options.id,
      placeholder: "Name, owner/repo or URL",
      spellcheck: false,
      autocomplete: "off",
      "aria-label": `LoRA ${index + 1}, path`,
    });
    path.addEventListener("input", () => this.change(index, { path: path.value.trim() }));
    const scaling = range({
      label: `LoRA ${index + 1}, scale`,
      minimum: scale.minimum,
      maximum: scale.maximum,
      onchange: (value) => this.change(index, { scale: value }),
    });
    const about = h("p", { class: "note lora-note" });
    const remove = iconButton("close", `Remove LoRA ${index + 1}`, () => this.removeRow(index));
    const element = h("li", { class: "lora" }, path, remove, scaling.element, about);
    this.list.append(element);
    const show = (entry) => {
      if (path.value.trim() !== entry.path) path.value = entry.path;
      scaling.show(entry.scale ?? 1);
      this.tell(about, this.installed.get(entry.path));
    };
    return { element, path, show };
  }

  /** What is known of an installed file; its trigger words go into the prompt by a click. */
  tell(about, lora) {
    if (about.dataset.path === (lora?.path ?? "")) return;
    about.dataset.path = lora?.path ?? "";
    const words = lora?.trigger_words ?? [];
    about.replaceChildren(
      ...(lora ? [describe(lora)] : []),
      ...words.map((word) =>
        h("button", { type: "button", class: "chip", title: "Add to the prompt", onclick: () => this.addWord(word) }, word),
      ),
    );
  }

  addWord(word) {
    const prompt = (this.draft.values.prompt ?? "").trim();
    if (!prompt.includes(word)) this.draft.set("prompt", prompt ? `${prompt}, ${word}` : word);
  }
}

function describe({ size, rank, base_model: base }) {
  const megabytes = size < 1e6 ? `${Math.max(1, Math.round(size / 1e3))} kB` : `${Math.round(size / 1e6)} MB`;
  return [rank ? `rank ${rank}` : "", megabytes, base ?? ""].filter(Boolean).join(" · ");
}

customElements.define("zt-loras", LorasField);
