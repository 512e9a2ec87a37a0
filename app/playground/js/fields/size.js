/** `image_size` as drawn shapes. */

import { h } from "../dom.js";
import { SIZES, aspectOf, pixels, sizeLabel } from "../sizes.js";
import { ChoiceField } from "./plain.js";

/** The longer side of a drawn shape, in pixels of the page. */
const LONG = 30;

export class SizeField extends ChoiceField {
  build() {
    super.build();
    this.querySelector(".segments").className = "shapes";
    this.chosen = h("span", { class: "figure" });
    this.querySelector(".aside").append(this.chosen);
    this.draft.addEventListener("natural", () => this.draw(), { signal: this.listening.signal });
  }

  word(option) {
    const size = SIZES[option];
    const shape = h("span", { class: size ? "shape" : "shape open" });
    shape.dataset.option = option;
    const [name, ratio] = sizeLabel(option);
    return h("span", { class: "size", title: size?.join(" × ") ?? "" }, h("span", { class: "canvas" }, shape), name, h("small", {}, ratio || (size ? "1:1" : "as the image")));
  }

  refresh() {
    super.refresh();
    this.draw();
  }

  draw() {
    this.chosen.textContent = pixels(this.value, this.draft.natural);
    for (const shape of this.querySelectorAll(".shape")) {
      const { option } = shape.dataset;
      const aspect = aspectOf(option, this.draft.natural);
      // Half the pixels a side look smaller too.
      const long = SIZES[option] && Math.max(...SIZES[option]) < 1000 ? LONG * 0.6 : LONG;
      shape.style.width = `${aspect > 1 ? long : long * aspect}px`;
      shape.style.height = `${aspect > 1 ? long / aspect : long}px`;
    }
  }
}

customElements.define("zt-size", SizeField);
