/** The control image: dropped, pasted, chosen or by URL; beside it the control map that the model will see. */

import { announce, h, icon, iconButton } from "../dom.js";
import { Field } from "./field.js";

const TYPES = "image/png,image/jpeg,image/webp,image/heic,image/avif";
const MAP_DELAY_MS = 250;
const MAP_ROUTE = "/v1/preprocess";

export class ImageField extends Field {
  build() {
    this.file = h("input", { type: "file", accept: TYPES, class: "hidden-visually", id: `${this.controlId}-file` });
    this.file.addEventListener("change", () => this.take(this.file.files[0]));
    this.picture = h("img", { alt: "Control image", hidden: true });
    this.picture.addEventListener("load", () => this.measured());
    this.picture.addEventListener("error", () => this.showable(false));
    this.prompt = h("span", { class: "drop-words" }, icon("image"), h("strong", {}, "Drop, paste or choose"), h("span", {}, "PNG, JPEG, WebP or HEIC"));
    this.remove = iconButton("close", "Remove the image", () => (this.value = ""), { hidden: true });
    const source = h("div", { class: "well" }, h("label", { class: "drop", htmlFor: this.file.id }, this.prompt, this.picture), this.remove);
    this.map = h("img", { alt: "Control map: what the model will see", hidden: true });
    this.mapWords = h("span", { class: "drop-words" });
    const map = h("div", { class: "well map" }, this.mapWords, this.map);
    this.pair = h("div", { class: "pair" }, this.file, source, map);
    this.input = h("input", { id: this.controlId, type: "url", placeholder: "https://… or drop a file above", spellcheck: false });
    this.input.addEventListener("input", () => (this.value = this.input.value.trim()));
    this.append(...this.head(), this.pair, this.input, this.faultLine());
    this.listen();
  }

  /** A picture may be dropped or pasted anywhere on the page. */
  listen() {
    const { signal } = this.listening;
    const files = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => files(event) && (event.preventDefault(), this.pair.classList.add("over")), { signal });
    addEventListener("dragleave", (event) => event.relatedTarget === null && this.pair.classList.remove("over"), { signal });
    addEventListener(
      "drop",
      (event) => {
        if (!files(event)) return;
        event.preventDefault();
        this.pair.classList.remove("over");
        this.take(event.dataTransfer.files[0]);
      },
      { signal },
    );
    addEventListener(
      "paste",
      (event) => {
        const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
        if (!file) return;
        event.preventDefault();
        this.take(file);
      },
      { signal },
    );
  }

  async take(file) {
    this.file.value = "";
    if (!file) return;
    this.pair.classList.add("busy");
    try {
      this.value = await this.api.upload(file);
      announce("The control image is in place.");
    } catch (error) {
      this.draft.setFaults([[this.field.name, error.message]]);
    } finally {
      this.pair.classList.remove("busy");
    }
  }

  refresh() {
    const url = this.value ?? "";
    const typed = url.startsWith("data:") ? "" : url;
    if (this.input.value.trim() !== typed) this.input.value = typed;
    if (url !== this.shown) {
      this.shown = url;
      this.remove.hidden = !url;
      const src = url && this.api.showable(url);
      this.picture.removeAttribute("src");
      this.draft.natural = null;
      if (src) this.picture.src = src;
      this.showable(Boolean(src));
    }
    this.refreshMap();
  }

  showable(yes) {
    this.picture.hidden = !yes;
    this.prompt.hidden = yes;
    const elsewhere = Boolean(this.shown) && !yes;
    this.prompt.querySelector("strong").textContent = elsewhere ? "By URL" : "Drop, paste or choose";
    this.prompt.lastChild.textContent = elsewhere ? "Fetched by the server" : "PNG, JPEG, WebP or HEIC";
  }

  measured() {
    this.draft.natural = [this.picture.naturalWidth, this.picture.naturalHeight];
    this.draft.dispatchEvent(new Event("natural"));
  }

  refreshMap() {
    const { preprocess, image_size: imageSize } = this.draft.values;
    const wanted = this.shown && preprocess && this.api.has(MAP_ROUTE) && looksWhole(this.shown);
    const key = wanted ? JSON.stringify([this.shown, preprocess, imageSize]) : "";
    if (key === this.mapKey) return;
    this.mapKey = key;
    this.asking?.abort();
    clearTimeout(this.mapTimer);
    this.tellMap(wanted ? "Making the control map…" : this.shown ? "" : "The control map shows here");
    if (wanted) this.mapTimer = setTimeout(() => this.askMap(preprocess, imageSize), MAP_DELAY_MS);
  }

  async askMap(preprocess, imageSize) {
    this.asking = new AbortController();
    const { signal } = this.asking;
    const body = { image_url: this.shown, preprocess, image_size: imageSize };
    try {
      const made = await this.api.post(MAP_ROUTE.slice(1), body, signal);
      this.map.src = this.api.ownFile(made.control_image);
      await this.map.decode();
      this.map.hidden = false;
      this.mapWords.hidden = true;
      this.draft.natural ??= [made.width, made.height];
      this.draft.dispatchEvent(new Event("natural"));
    } catch (error) {
      if (error.name !== "AbortError") this.tellMap(error.message.replace(/^\w+: /, ""));
    }
  }

  tellMap(words) {
    this.map.hidden = true;
    this.mapWords.hidden = false;
    this.mapWords.textContent = words;
  }
}

/** A URL that is being typed is not worth asking about. */
function looksWhole(url) {
  return url.startsWith("data:image/") || url.includes("/v1/files/") || /^https?:\/\/[^/]+\.[^/]+\/.+/.test(url);
}

customElements.define("zt-image", ImageField);
