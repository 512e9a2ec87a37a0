/** The request in three views: a form made of the model's schema, JSON, and code. */

import { saying } from "../api.js";
import { h } from "../dom.js";
import { elementFor, sections } from "../fields/choose.js";
import { parse, stringify } from "../json.js";
import { tabs } from "../tabs.js";
import { CodeView } from "./code.js";

/** @import {Context} from "../types" */

const FOLDED = "Advanced";

export class Composer extends HTMLElement {
  /** @type {Context} */
  context;
  listening = new AbortController();
  text = h("textarea", {
    class: "code json",
    spellcheck: false,
    "aria-label": "The request as JSON",
    "aria-describedby": "json-fault",
  });
  textFault = h("p", { class: "fault", id: "json-fault", role: "status" });
  writing = false;

  connectedCallback() {
    this.text.addEventListener("input", () => this.readText());
  }

  /** @param {Context} context called again for another model */
  show(context) {
    this.listening.abort();
    this.listening = new AbortController();
    this.context = context;
    const json = h("div", { class: "json-view" }, this.text, this.textFault);
    const code = new CodeView(context);
    const panels = { Form: h("div", { class: "form" }, ...this.buildForm()), JSON: json, Code: code.element };
    const refresh = () => {
      this.refreshText();
      code.refresh();
    };
    const list = tabs("request", "Views of the request", panels, refresh);
    this.replaceChildren(list, ...Object.values(panels));
    context.draft.addEventListener("change", refresh, { signal: this.listening.signal });
    refresh();
  }

  buildForm() {
    const { fields } = this.context.draft;
    return sections(fields).map(([title, own]) => {
      const elements = own.map((field) => elementFor(field, fields, this.context)).filter((each) => each !== null);
      const body = h("div", { class: `section section-${title.toLowerCase()}` }, ...elements);
      return title === FOLDED ? h("details", { class: "folded" }, h("summary", {}, title), body) : body;
    });
  }

  /** While the text is no request, the draft keeps what it was, and Run says so. */
  readText() {
    const { draft } = this.context;
    try {
      const values = parse(this.text.value);
      if (values === null || typeof values !== "object" || Array.isArray(values))
        throw new Error("it is no object: { … }");
      this.fault("");
      this.writing = true;
      draft.replace(values);
    } catch (error) {
      this.fault(`Invalid JSON: ${saying(error)}`);
    } finally {
      this.writing = false;
    }
  }

  /** @param {string} words */
  fault(words) {
    this.textFault.textContent = words;
    this.context.draft.broken = words;
  }

  refreshText() {
    if (this.writing) return;
    this.text.value = stringify(this.context.draft.body(), 2);
    this.fault("");
  }
}

customElements.define("zt-composer", Composer);
