/** `image_size` as drawn shapes. */

import { h } from "../dom.js";
import { aspectOf, pixels, SIZES, sizeLabel } from "../sizes.js";
import { ChoiceField } from "./plain.js";

/** The longer side of a drawn shape, in pixels of the page. */
const LONG = 30;

export class SizeField extends ChoiceField {
  chosen = h("span", { class: "figure" });

  build() {
    super.build();
    this.group.className = "shapes";
    this.querySelector(".aside")?.append(this.chosen);
    this.draft.addEventListener("natural", () => this.draw(), { signal: this.listening.signal });
  }

  /** @param {string} option */
  option(option) {
    const size = SIZES[option];
    const shape = h("span", { class: size ? "shape" : "shape open" });
    shape.dataset.option = option;
    const [name, ratio] = sizeLabel(option);
    const note = h("small", {}, ratio || (size ? "1:1" : "as the image"));
    const own = { class: "size", title: size?.join(" × ") ?? "" };
    return h("span", {}, h("span", own, h("span", { class: "canvas" }, shape), name, note));
  }

  refresh() {
    super.refresh();
    this.draw();
  }

  draw() {
    this.chosen.textContent = pixels(this.value, this.draft.natural);
    for (const shape of /** @type {NodeListOf<HTMLElement>} */ (this.querySelectorAll(".shape"))) {
      const option = shape.dataset.option ?? "";
      const aspect = aspectOf(option, this.draft.natural);
      // Half the pixels a side look smaller too.
      const long = SIZES[option] && Math.max(...SIZES[option]) < 1000 ? LONG * 0.6 : LONG;
      shape.style.width = `${aspect > 1 ? long : long * aspect}px`;
      shape.style.height = `${aspect > 1 ? long / aspect : long}px`;
    }
  }
}

customElements.define("zt-size", SizeField);
