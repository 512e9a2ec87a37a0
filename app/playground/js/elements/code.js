/** The request as code in three languages, to be copied. */

import { copyButton, h } from "../dom.js";
import { highlighted } from "../highlight.js";
import { snippets } from "../snippets.js";
import { tabs } from "../tabs.js";

/** @import {Context} from "../types" */

const LANGUAGES = ["curl", "Python", "JavaScript"];

export class CodeView {
  /** @type {Record<string, string>} */
  code = {};
  shown = LANGUAGES[0];
  blocks = Object.fromEntries(LANGUAGES.map((language) => [language, h("code", {})]));

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    const panels = Object.fromEntries(LANGUAGES.map((language) => [language, this.panel(language)]));
    const list = tabs("code", "Languages", panels, (title) => {
      this.shown = title;
    });
    const copy = copyButton(() => this.code[this.shown]);
    const bar = h("div", { class: "bar" }, list, copy);
    const fields = h("a", { href: "docs" }, "every field and route");
    const documents = h("a", { href: "documents/api" }, "the documents");
    const more = h("p", { class: "note" }, "More: ", fields, ", ", documents, ".");
    this.element = h("div", { class: "code-view" }, bar, ...Object.values(panels), more);
  }

  /** @param {string} language */
  panel(language) {
    const label = { class: "code", tabIndex: 0, "aria-label": `${language} code` };
    return h("div", {}, h("pre", label, this.blocks[language]));
  }

  refresh() {
    const { api, target } = this.context;
    this.code = snippets({ base: api.base.href, ...target(), withKey: api.key !== "" });
    for (const language of LANGUAGES) this.blocks[language].replaceChildren(...highlighted(this.code[language]));
  }
}
