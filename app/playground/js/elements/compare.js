/** The picture with its control image over it, as far as a slider says. */

import { h } from "../dom.js";

export class Compare extends HTMLElement {
  /** `under`: URL of the picture; `over`: of what it is compared with, or null; `alt`: of the picture. */
  show({ under, over, alt }) {
    this.picture = h("img", { class: "under", src: under, alt, decoding: "async" });
    this.replaceChildren(this.picture);
    this.classList.remove("open");
    if (!over) return;
    this.slider = h("input", { type: "range", min: 0, max: 100, value: 50, step: 1, "aria-label": "How much of the control image lies over the picture" });
    this.slider.addEventListener("input", () => this.place());
    this.over = h("img", { class: "over", src: over, alt: "Control image", decoding: "async" });
    this.line = h("span", { class: "line", "aria-hidden": "true" });
  }

  get comparable() {
    return Boolean(this.over);
  }

  set comparing(yes) {
    this.classList.toggle("open", yes);
    if (yes) {
      this.append(this.over, this.line, this.slider);
      this.place();
    } else this.replaceChildren(this.picture);
  }

  get comparing() {
    return this.classList.contains("open");
  }

  place() {
    this.style.setProperty("--cut", `${this.slider.value}%`);
    this.slider.setAttribute("aria-valuetext", `${this.slider.value} percent`);
  }
}

customElements.define("zt-compare", Compare);
