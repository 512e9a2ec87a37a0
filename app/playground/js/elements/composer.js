/** The request in three views: a form made of the model's schema, JSON, and code. */

import { copyButton, h } from "../dom.js";
import { elementFor, sections } from "../fields/choose.js";
import { snippets } from "../snippets.js";
import { tabs } from "../tabs.js";

export class Composer extends HTMLElement {
  /** `context`: {api, draft, history, onExample()}; called again for another model. */
  show(context) {
    this.listening?.abort();
    this.listening = new AbortController();
    Object.assign(this, context);
    this.form = h("div", { class: "form" }, ...this.buildForm(context));
    const panels = { Form: this.form, JSON: this.buildJson(), Code: this.buildCode() };
    this.tabs = tabs("request", "Views of the request", panels, () => this.refresh?.());
    this.replaceChildren(this.tabs.list, ...Object.values(panels));
    this.refresh = () => {
      this.refreshJson();
      this.refreshCode();
    };
    this.draft.addEventListener("change", this.refresh, { signal: this.listening.signal });
    this.refresh();
  }

  buildForm(context) {
    const { fields } = this.draft;
    return sections(fields).map(([title, own]) =>
      h(
        "div",
        { class: `section section-${title.toLowerCase()}` },
        ...own.map((field) => elementFor(field, fields, context)).filter(Boolean),
      ),
    );
  }

  buildJson() {
    this.text = h("textarea", { class: "code json", spellcheck: false, "aria-label": "The request as JSON", "aria-describedby": "json-fault" });
    this.textFault = h("p", { class: "fault", id: "json-fault", role: "status" });
    this.text.addEventListener("input", () => this.readText());
    return h("div", { class: "json-view" }, this.text, this.textFault);
  }

  /** While the text is no request, the draft keeps what it was, and Run says so. */
  readText() {
    let values;
    try {
      values = JSON.parse(this.text.value);
      if (values === null || typeof values !== "object" || Array.isArray(values)) throw new Error("A request is an object: { … }");
    } catch (error) {
      this.textFault.textContent = error.message;
      this.draft.broken = error.message;
      return;
    }
    this.textFault.textContent = "";
    this.draft.broken = null;
    this.writing = true;
    this.draft.replace(values);
    this.writing = false;
  }

  refreshJson() {
    if (this.writing) return;
    this.text.value = JSON.stringify(this.draft.values, null, 2);
    this.textFault.textContent = "";
    this.draft.broken = null;
  }

  buildCode() {
    const panels = {};
    this.blocks = {};
    for (const language of ["curl", "Python", "JavaScript"]) {
      this.blocks[language] = h("code", {});
      panels[language] = h("div", {}, h("pre", { class: "code", tabIndex: 0, "aria-label": `${language} code` }, this.blocks[language]));
    }
    let shown = "curl";
    const languages = tabs("code", "Languages", panels, (title) => (shown = title));
    const copy = copyButton(() => this.blocks[shown].textContent);
    return h("div", { class: "code-view" }, h("div", { class: "bar" }, languages.list, copy), ...Object.values(panels));
  }

  refreshCode() {
    const { modelId } = this.draft;
    const code = snippets({ base: this.api.base.href, modelId, values: this.draft.body(), withKey: this.api.key !== "" });
    for (const [language, block] of Object.entries(this.blocks)) block.textContent = code[language];
  }
}

customElements.define("zt-composer", Composer);
