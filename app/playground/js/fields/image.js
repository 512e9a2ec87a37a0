/** The control image: dropped, pasted, chosen or by URL; beside it the control map that the model will see. */

import { faultOf } from "../api.js";
import { announce, h, icon, iconButton } from "../dom.js";
import { looksLikePhotograph } from "../photo.js";
import { ControlMap } from "./control_map.js";
import { Field } from "./field.js";
import { fileOf, inBytes, remember } from "./filenames.js";

const TYPES = "image/png,image/jpeg,image/webp,image/heic,image/avif";

export class ImageField extends Field {
  /** @type {string | null} the URL that is shown; null before the first */
  shown = null;
  file = h("input", { type: "file", accept: TYPES, class: "hidden-visually" });
  picture = h("img", { hidden: true });
  empty = h("span", { class: "drop-words" });
  clearing = iconButton("close", "Remove the image", () => this.clear(), { hidden: true });
  pair = h("div", { class: "pair" });
  about = h("p", { class: "note image-about", hidden: true });
  input = h("input", { type: "url", placeholder: "https://… of an image", spellcheck: false });

  build() {
    this.file.id = `${this.controlId}-file`;
    this.input.id = this.controlId;
    this.picture.alt = `${this.called[0].toUpperCase()}${this.called.slice(1)}`;
    this.map = this.guides ? new ControlMap(this.api, this.draft) : null;
    this.file.addEventListener("change", () => this.take(this.file.files?.[0]));
    this.picture.addEventListener("load", () => this.loaded());
    this.picture.addEventListener("error", () => this.show(false));
    this.input.addEventListener("input", () => {
      this.value = this.input.value.trim();
    });
    const source = h(
      "div",
      { class: "well" },
      h("label", { class: "drop", htmlFor: this.file.id }, this.empty, this.picture),
      this.clearing,
    );
    this.pair.replaceChildren(this.file, source, this.map?.element ?? "");
    this.append(...this.head(), this.pair, this.about, this.input, this.fault);
    this.listen();
  }

  /** Whether a map of the image guides the picture; else the image itself is changed. */
  get guides() {
    return this.draft.field("preprocess") !== undefined;
  }

  get called() {
    return this.guides ? "control image" : "image";
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.map?.stop();
  }

  /** A picture may be dropped or pasted anywhere on the page. */
  listen() {
    const { signal } = this.listening;
    const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
    addEventListener(
      "dragover",
      (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        this.pair.classList.add("over");
      },
      { signal },
    );
    addEventListener("dragleave", (event) => event.relatedTarget === null && this.pair.classList.remove("over"), {
      signal,
    });
    addEventListener(
      "drop",
      (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        this.pair.classList.remove("over");
        this.take(event.dataTransfer?.files[0]);
      },
      { signal },
    );
    addEventListener(
      "paste",
      (event) => {
        const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
        if (!file) return;
        event.preventDefault();
        this.take(file);
      },
      { signal },
    );
  }

  /** @param {File | undefined} file */
  take(file) {
    this.file.value = "";
    if (!file) return;
    const { arriving } = this.draft;
    const { name } = this.field;
    const coming = this.upload(file, () => arriving.get(name) === coming);
    arriving.set(name, coming);
    this.pair.classList.add("busy");
  }

  /**
   * @param {File} file
   * @param {() => boolean} isWanted false once another file was chosen
   */
  async upload(file, isWanted) {
    try {
      const url = await this.api.upload(file);
      remember(url, file);
      if (!isWanted()) return;
      this.value = url;
      announce(`The ${this.called} is in place.`);
    } catch (error) {
      if (isWanted()) this.draft.setFaults([[this.field.name, faultOf(error)]]);
    } finally {
      if (isWanted()) {
        this.draft.arriving.delete(this.field.name);
        this.pair.classList.remove("busy");
      }
    }
  }

  clear() {
    this.value = "";
    this.file.focus();
  }

  refresh() {
    const url = this.value ?? "";
    const typed = url.startsWith("data:") ? "" : url;
    if (this.input.value.trim() !== typed) this.input.value = typed;
    if (url !== this.shown) {
      this.shown = url;
      this.clearing.hidden = !url;
      this.draft.measure(null);
      const src = url && this.api.showable(url);
      this.picture.removeAttribute("src");
      if (src) this.picture.src = src;
      this.show(Boolean(src));
    }
    this.map?.refresh(url);
  }

  /** @param {boolean} picture whether there is one to show */
  show(picture) {
    this.picture.hidden = !picture;
    this.empty.hidden = picture;
    const elsewhere = Boolean(this.shown) && !picture;
    const first = elsewhere
      ? [h("strong", {}, "By URL")]
      : [
          h("strong", { class: "for-mouse" }, "Drop, paste or choose"),
          h("strong", { class: "for-touch" }, "Tap to choose"),
        ];
    const note = elsewhere ? "Fetched by the server" : "PNG, JPEG, WebP or HEIC";
    this.empty.replaceChildren(icon("image"), ...first, h("span", {}, note));
    // The URL of what this browser sent says nothing to people; its name does.
    this.input.hidden = picture && !this.input.matches(":focus");
    this.tell();
  }

  tell() {
    const file = fileOf(this.shown ?? "");
    const facts = [file && inBytes(file.size), this.draft.natural?.join(" × ")].filter(Boolean).join(" · ");
    this.about.hidden = this.picture.hidden;
    this.about.title = file?.name ?? "";
    this.about.replaceChildren(h("span", { class: "file-name" }, file?.name ?? ""), file ? ` · ${facts}` : facts);
  }

  loaded() {
    this.draft.measure([this.picture.naturalWidth, this.picture.naturalHeight], looksLikePhotograph(this.picture));
    this.tell();
  }
}

customElements.define("zt-image", ImageField);
