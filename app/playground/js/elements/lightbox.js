/** A picture over the whole window: fitted or at its own size, copied, saved, and on to the next. */

import { saying } from "../api.js";
import { announce, button, confirm, h, icon, iconButton, MOST_TIMES, pictureImage } from "../dom.js";
import { fileName } from "../download.js";
import { picturesOf } from "../history.js";

/** @import {Api} from "../api.js" */
/** @import {Shown} from "../types" */

const PNG = "image/png";
/** Only pages from this machine or over HTTPS may write pictures to the clipboard. */
const CAN_COPY = "ClipboardItem" in window && Boolean(navigator.clipboard);

export class Lightbox extends HTMLElement {
  /** @type {Api} */
  api;
  /** @type {(shown: Shown) => void} */
  onNextSeed;
  place = h("div", { class: "place" });
  bar = h("div", { class: "lightbox-bar" });
  dialog = h("dialog", { class: "lightbox", "aria-label": "The picture" }, this.bar, this.place);
  /** @type {Shown | null} */
  shown = null;
  index = 0;

  /** @param {{api: Api, onNextSeed: (shown: Shown) => void}} context */
  setup(context) {
    Object.assign(this, context);
    this.replaceChildren(this.dialog);
    this.dialog.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) this.move(by);
    });
    // Beside the picture, as people expect.
    this.place.addEventListener("click", (event) => event.target === this.place && this.dialog.close());
  }

  /**
   * @param {Shown} shown
   * @param {number} index
   */
  open(shown, index) {
    this.shown = shown;
    this.index = index;
    this.draw();
    this.dialog.showModal();
  }

  get pictures() {
    return this.shown ? picturesOf(this.shown.result, this.api) : [];
  }

  /** @param {number} by */
  move(by) {
    const { length } = this.pictures;
    if (length < 2) return;
    this.index = (this.index + by + length) % length;
    this.draw();
  }

  draw() {
    const { shown, pictures, index } = this;
    if (!shown) return;
    const picture = pictures[index];
    const image = pictureImage(picture.shown, shown.input?.prompt ?? "The picture");
    const zoom = button("zoom", "Full size", () => this.zoom(zoom), { class: "quiet zoom", "aria-pressed": "false" });
    image.addEventListener("click", () => this.zoom(zoom));
    image.addEventListener("load", () => {
      size.textContent = `${image.naturalWidth} × ${image.naturalHeight}`;
      if (image.classList.contains("tiny")) image.style.maxWidth = `${image.naturalWidth * MOST_TIMES}px`;
    });
    const size = h("span", { class: "figure" });
    const words = h("span", {}, "Copy");
    const copy = h(
      "button",
      { type: "button", class: "quiet", onclick: () => this.copy(image, words) },
      icon("copy"),
      words,
    );
    const link = { class: "quiet", href: picture.shown, download: fileName(shown.result, pictures, index) };
    const many = pictures.length > 1;
    this.bar.replaceChildren(
      ...(many
        ? [
            iconButton("left", "Previous picture", () => this.move(-1)),
            iconButton("right", "Next picture", () => this.move(1)),
          ]
        : []),
      h("span", { class: "lightbox-facts" }, size, picture.seed === undefined ? "" : ` · seed ${picture.seed}`),
      zoom,
      CAN_COPY ? copy : "",
      h("a", link, icon("download"), "Download"),
      shown.input ? button("next", "Next seed", () => this.again(shown)) : "",
      iconButton("close", "Close", () => this.dialog.close()),
    );
    this.place.className = "place";
    this.place.replaceChildren(image);
  }

  /** @param {HTMLElement} toggle */
  zoom(toggle) {
    const atSize = this.place.classList.toggle("at-size");
    toggle.setAttribute("aria-pressed", String(atSize));
  }

  /**
   * @param {HTMLImageElement} image
   * @param {HTMLElement} words
   */
  async copy(image, words) {
    try {
      await navigator.clipboard.write([new ClipboardItem({ [PNG]: asPng(image) })]);
      confirm(words, "Copied", "Copy");
    } catch (error) {
      announce(saying(error));
      confirm(words, "Not copied", "Copy");
    }
  }

  /** @param {Shown} shown */
  again(shown) {
    this.dialog.close();
    this.onNextSeed(shown);
  }
}

/**
 * The one format that every clipboard takes.
 * @param {HTMLImageElement} image
 */
async function asPng(image) {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  canvas.getContext("2d")?.drawImage(image, 0, 0);
  return canvas.convertToBlob({ type: PNG });
}

customElements.define("zt-lightbox", Lightbox);
