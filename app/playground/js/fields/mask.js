/** The mask, painted over the image with mouse, finger or keys, or loaded from a file. */

import { faultOf } from "../api.js";
import { announce, button, h, icon } from "../dom.js";
import { Field } from "./field.js";
import { remember } from "./filenames.js";
import { Painting } from "./painting.js";
import { range } from "./range.js";

/** @import {Size} from "../types" */

const TYPES = "image/png,image/jpeg,image/webp";
/** After the last stroke, before the mask is sent: one more often follows. */
const REST_MS = 400;
/** The brush, as a share of the image's shorter side, in percent. */
const BRUSH = { minimum: 1, maximum: 50, initial: 12 };
/** How far an arrow key moves the brush, as a share of it. */
const STEP = 0.5;

/** @type {Record<string, Size>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class MaskField extends Field {
  painting = new Painting();
  /** The mask's URL that the painting stands for. */
  painted = "";
  percent = BRUSH.initial;
  /** @type {Size} where the brush is, in pixels of the image */
  at = [0, 0];
  pressing = false;
  timer = 0;
  under = h("img", { alt: "", draggable: false });
  brush = h("span", { class: "brush", hidden: true });
  words = h("span", { class: "drop-words" });
  file = h("input", { type: "file", accept: TYPES, class: "hidden-visually" });
  undoing = button("restore", "Undo", () => this.change(() => this.painting.undo(), "The last stroke is taken back."));
  clearing = button("trash", "Clear", () => this.change(() => this.painting.clear(), "The mask is empty."));

  build() {
    const { canvas } = this.painting;
    canvas.id = this.controlId;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "Mask: paint what is drawn anew");
    canvas.setAttribute("aria-describedby", `${this.controlId}-keys`);
    this.file.id = `${this.controlId}-file`;
    this.file.addEventListener("change", () => this.take(this.file.files?.[0]));
    const load = h("label", { class: "quiet", htmlFor: this.file.id }, icon("image"), "Load…");
    const size = range({ label: "Brush", minimum: BRUSH.minimum, maximum: BRUSH.maximum, integer: true }, (percent) => {
      this.percent = percent;
      size.show(percent);
      this.showBrush();
    });
    size.show(this.percent);
    const keys = h(
      "p",
      { class: "note", id: `${this.controlId}-keys` },
      "Paint over what is to change. With keys: arrows move the brush, with Shift they paint, Space sets a dot.",
    );
    this.board = h("div", { class: "board" }, this.under, canvas, this.brush);
    this.tools = h("div", { class: "mask-tools" }, h("span", { class: "note" }, "Brush"), size.element);
    const actions = h("div", { class: "mask-tools" }, this.undoing, this.clearing, this.file, load);
    this.append(...this.head("legend"), this.board, this.words, this.tools, actions, keys, this.fault);
    this.listen(canvas);
    this.under.addEventListener("load", () => this.fit());
    this.draft.addEventListener("natural", () => this.fit(), { signal: this.listening.signal });
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.timer);
  }

  /** @param {HTMLCanvasElement} canvas */
  listen(canvas) {
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.painting.size) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.pressing = true;
      this.at = this.pointOf(event);
      this.painting.begin(this.width, this.at);
      this.showBrush();
    });
    canvas.addEventListener("pointermove", (event) => {
      // A quick hand is drawn through every place where it was between two frames.
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) {
        this.at = this.pointOf(each);
        if (this.pressing) this.painting.stretch(this.at);
      }
      this.showBrush();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.lift());
    canvas.addEventListener("pointerleave", () => {
      this.brush.hidden = true;
    });
    canvas.addEventListener("blur", () => {
      this.brush.hidden = true;
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { size } = this.painting;
    if (!size || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (event.key === " ") {
      this.change(() => this.painting.begin(this.width, this.at), "A dot is painted.");
    } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      this.undoing.click();
    } else if (arrow) {
      const from = this.at;
      const moved = from.map((each, axis) => each + arrow[axis] * this.width * STEP);
      this.at = [clamp(moved[0], size[0]), clamp(moved[1], size[1])];
      if (event.shiftKey) {
        this.change(() => {
          this.painting.begin(this.width, from);
          this.painting.stretch(this.at);
        }, "");
      }
    } else return;
    event.preventDefault();
    this.showBrush();
  }

  /** The brush's diameter in pixels of the image. */
  get width() {
    return Math.max(1, (Math.min(...(this.painting.size ?? [1, 1])) * this.percent) / 100);
  }

  /**
   * @param {PointerEvent} event
   * @returns {Size}
   */
  pointOf({ clientX, clientY }) {
    const { canvas } = this.painting;
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return [((clientX - left) / width) * canvas.width, ((clientY - top) / height) * canvas.height];
  }

  showBrush() {
    const { canvas, size } = this.painting;
    this.brush.hidden = !size || !canvas.matches(":focus, :hover");
    if (!size) return;
    const shown = canvas.clientWidth / size[0];
    Object.assign(this.brush.style, {
      width: `${this.width * shown}px`,
      height: `${this.width * shown}px`,
      left: `${this.at[0] * shown}px`,
      top: `${this.at[1] * shown}px`,
    });
  }

  lift() {
    if (!this.pressing) return;
    this.pressing = false;
    this.change(() => {}, "");
  }

  /**
   * Does something to the painting, and sends it once the hand rests.
   * @param {() => void} action
   * @param {string} words
   */
  change(action, words) {
    action();
    if (words) announce(words);
    this.show();
    clearTimeout(this.timer);
    if (this.painting.isEmpty) {
      this.draft.arriving.delete(this.field.name);
      this.settle("");
      return;
    }
    this.arrive(async (isWanted) => {
      await new Promise((resolve) => {
        this.timer = setTimeout(resolve, REST_MS);
      });
      if (!isWanted()) return;
      const file = await this.painting.file();
      const url = await this.api.upload(file);
      remember(url, file);
      if (isWanted()) this.settle(url);
    });
  }

  /** @param {string} url what the painting stands for now */
  settle(url) {
    this.painted = url;
    if (this.value !== url && (url || this.value)) this.value = url;
  }

  /**
   * A file is kept as it is; what was painted gives way to it.
   * @param {File | undefined} file
   */
  take(file) {
    this.file.value = "";
    if (!file) return;
    this.arrive(async (isWanted) => {
      const url = await this.api.upload(file);
      remember(url, file);
      if (isWanted()) this.value = url;
    });
  }

  /**
   * Has Run wait for a mask that is on its way.
   * @param {(isWanted: () => boolean) => Promise<void>} bring
   */
  arrive(bring) {
    const { arriving } = this.draft;
    const { name } = this.field;
    const isWanted = () => arriving.get(name) === coming;
    const coming = Promise.resolve().then(async () => {
      try {
        await bring(isWanted);
      } catch (error) {
        if (isWanted()) this.draft.setFaults([[name, faultOf(error)]]);
      } finally {
        if (isWanted()) arriving.delete(name);
      }
    });
    arriving.set(name, coming);
  }

  refresh() {
    const image = this.draft.values.image_url ?? "";
    const src = image && this.api.showable(image);
    if (this.under.getAttribute("src") !== (src || null)) {
      if (src) this.under.src = src;
      else this.under.removeAttribute("src");
    }
    this.fit();
  }

  /** Brings the painting to the image's size, and to the mask that the request has. */
  fit() {
    const { natural } = this.draft;
    const url = this.value ?? "";
    const shown = Boolean(this.under.getAttribute("src")) && natural !== null;
    if (shown && String(natural) !== String(this.painting.size)) {
      const isOld = this.painting.size !== null && url !== "" && url === this.painted;
      this.painting.colour = getComputedStyle(this).getPropertyValue("--paint") || "red";
      this.painting.reset(natural);
      this.style.setProperty("--aspect", String(natural[0] / natural[1]));
      this.at = [natural[0] / 2, natural[1] / 2];
      // A mask of another image's size fits this one no more.
      this.painted = "";
      if (isOld) {
        this.value = "";
        return;
      }
    }
    if (shown && url !== this.painted) this.open(url);
    this.show();
  }

  /** @param {string} url of a mask that was not painted here */
  open(url) {
    this.painted = url;
    this.painting.clear();
    const src = url && this.api.showable(url);
    if (!src) return;
    const image = new Image();
    image.onload = () => {
      const { size } = this.painting;
      if (this.painted !== url || !size) return;
      if (image.naturalWidth === size[0] && image.naturalHeight === size[1]) this.painting.load(image);
      else {
        this.value = "";
        const sizes = `The mask is ${image.naturalWidth}x${image.naturalHeight} and the image ${size[0]}x${size[1]}`;
        this.draft.setFaults([[this.field.name, `${sizes}; both must be of one size.`]]);
      }
      this.show();
    };
    image.src = src;
  }

  show() {
    const paintable = this.painting.size !== null && Boolean(this.under.getAttribute("src"));
    for (const part of [this.board, this.tools, this.undoing, this.clearing]) if (part) part.hidden = !paintable;
    this.undoing.disabled = this.clearing.disabled = this.painting.isEmpty;
    this.words.hidden = paintable;
    const loaded = this.value ? "A mask is loaded. " : "";
    const why = this.draft.values.image_url ? "The image is on another server, so" : "Once there is an image,";
    const what = this.draft.values.image_url ? "its mask is loaded from a file." : "the mask is painted over it here.";
    this.words.textContent = `${loaded}${why} ${what}`;
  }
}

/**
 * @param {number} value
 * @param {number} most
 */
const clamp = (value, most) => Math.min(most, Math.max(0, value));

customElements.define("zt-mask", MaskField);
