/** The picture with its control image over it, as far as a slider says. */

import { h, MOST_TIMES, pictureImage } from "../dom.js";

export class Compare extends HTMLElement {
  slider = h("input", {
    type: "range",
    min: 0,
    max: 100,
    value: 50,
    step: 1,
    "aria-label": "How much of the control image lies over the picture",
  });
  line = h("span", { class: "line", "aria-hidden": "true" });
  picture = pictureImage("", "");
  /** @type {HTMLImageElement | null} */
  over = null;

  /** @param {{under: string, over: string | null, alt: string}} shown URLs; `over`: what it is compared with */
  show({ under, over, alt }) {
    this.picture = pictureImage(under, alt, { class: "under" });
    this.picture.addEventListener("load", () => this.fit());
    this.slider.addEventListener("input", () => this.place());
    if (over) this.over = pictureImage(over, "Control image", { class: "over" });
    this.replaceChildren(this.picture);
  }

  /** A tiny picture gets a whole number of the page's pixels for each of its own. */
  fit() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    const frame = this.parentElement;
    if (!frame || !this.picture.classList.contains("tiny")) return;
    const room = Math.min(frame.clientWidth / width, frame.clientHeight / height);
    const times = Math.max(1, Math.min(MOST_TIMES, Math.floor(room)));
    this.style.inset = "auto";
    this.style.width = `${width * times}px`;
    this.style.height = `${height * times}px`;
  }

  get comparing() {
    return this.classList.contains("open");
  }

  set comparing(yes) {
    this.classList.toggle("open", yes);
    if (yes && this.over) {
      this.append(this.over, this.line, this.slider);
      this.place();
    } else this.replaceChildren(this.picture);
  }

  place() {
    this.style.setProperty("--cut", `${this.slider.value}%`);
    this.slider.setAttribute("aria-valuetext", `${this.slider.value} percent`);
  }
}

customElements.define("zt-compare", Compare);
