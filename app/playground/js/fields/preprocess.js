/** How the control image becomes a map; under it, that a photograph is no map yet, and the ways to make one. */

import { button, h } from "../dom.js";
import { ChoiceField } from "./plain.js";
import { optionWord } from "./words.js";

const AS_IT_IS = "none";

export class PreprocessField extends ChoiceField {
  // Below what a hand is on its way to when it comes: nothing that can be pressed moves.
  notice = h("div", { class: "notice", role: "status", hidden: true });

  build() {
    super.build();
    const { name, unavailable } = this.field;
    const ways = this.options.filter((option) => option !== AS_IT_IS && !unavailable[option]);
    const offers = ways.map((option) =>
      button(null, optionWord(name, option), () => {
        this.value = option;
      }),
    );
    const words = "This looks like a photograph. The model wants a map of it: guide the picture by";
    this.notice.replaceChildren(h("p", {}, words), h("div", { class: "notice-offers" }, ...offers));
    this.append(this.notice);
    this.draft.addEventListener("natural", () => this.refresh(), { signal: this.listening.signal });
  }

  refresh() {
    super.refresh();
    this.notice.hidden = !(this.draft.photograph && this.value === AS_IT_IS);
  }
}

customElements.define("zt-preprocess", PreprocessField);
