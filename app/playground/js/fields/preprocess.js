/** How the control image becomes a map; under it, why that would not work as it stands, and what would. */

import { button, copyButton, h, icon, prose } from "../dom.js";
import { inBytes } from "./filenames.js";
import { ChoiceField } from "./plain.js";
import { optionWord } from "./words.js";

const AS_IT_IS = "none";

export class PreprocessField extends ChoiceField {
  // Below what a hand is on its way to when it comes: nothing that can be pressed moves.
  notice = h("div", { class: "notice", role: "status", hidden: true });
  told = "";

  build() {
    super.build();
    this.append(this.notice);
    this.draft.addEventListener("natural", () => this.refresh(), { signal: this.listening.signal });
  }

  /** @param {string} option */
  option(option) {
    const shown = super.option(option);
    if (option in this.field.unavailable) shown.prepend(icon("download"));
    return shown;
  }

  refresh() {
    super.refresh();
    const key = `${this.value} ${this.draft.photograph}`;
    if (key === this.told) return;
    this.told = key;
    const parts = this.value in this.field.unavailable ? this.missing(this.value) : this.offers();
    this.notice.hidden = parts.length === 0;
    this.notice.replaceChildren(...parts);
  }

  /**
   * @param {string} option one whose detector is not on the server
   * @returns {HTMLElement[]}
   */
  missing(option) {
    const { command, size } = this.field.unavailable[option];
    const word = optionWord(this.field.name, option);
    const words = `${word} needs a detector that this server does not have yet. \`${command}\` there fetches it (${inBytes(size)}).`;
    const ready = " A ready map needs none: choose it as the image, and “As it is”.";
    const copy = copyButton(() => command, "Copy command");
    return [h("p", {}, ...prose(words), ready), h("div", { class: "notice-offers" }, copy)];
  }

  /**
   * Ways to make a map of what is none.
   * @returns {HTMLElement[]}
   */
  offers() {
    if (!this.draft.photograph || this.value !== AS_IT_IS) return [];
    const ways = this.options.filter((option) => option !== AS_IT_IS && !(option in this.field.unavailable));
    const offers = ways.map((option) =>
      button(null, optionWord(this.field.name, option), () => {
        this.value = option;
      }),
    );
    const words = "This looks like a photograph. The model wants a map of it: guide the picture by";
    return [h("p", {}, words), h("div", { class: "notice-offers" }, ...offers)];
  }
}

customElements.define("zt-preprocess", PreprocessField);
