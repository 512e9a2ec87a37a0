/** The map that the model will see, made by the server before the run. */

import { saying } from "../api.js";
import { h } from "../dom.js";
import { looksLikePhotograph } from "../photo.js";

/** @import {Api} from "../api.js" */
/** @import {Draft} from "../draft.js" */

const DELAY_MS = 250;

export class ControlMap {
  image = h("img", { alt: "Control map: what the model will see", hidden: true });
  words = h("span", { class: "drop-words" });
  element = h("div", { class: "well map" }, this.words, this.image);
  asking = new AbortController();
  timer = 0;
  /** @type {string | null} */
  key = null;

  /**
   * @param {Api} api
   * @param {Draft} draft
   */
  constructor(api, draft) {
    this.api = api;
    this.draft = draft;
  }

  stop() {
    this.asking.abort();
    clearTimeout(this.timer);
  }

  /** @param {string} url of the control image, perhaps half typed */
  refresh(url) {
    const { preprocess, image_size: size } = this.draft.values;
    const wanted = Boolean(preprocess) && looksWhole(url);
    const missing = Boolean(this.draft.field("preprocess")?.unavailable[preprocess]);
    const key = JSON.stringify([wanted, url, preprocess, size]);
    if (key === this.key) return;
    this.key = key;
    this.stop();
    if (missing) this.tell("This server cannot make that map yet");
    else this.tell(wanted ? "Making the control map…" : url ? "" : "The control map shows here");
    if (wanted && !missing) {
      this.timer = setTimeout(() => this.ask({ image_url: url, preprocess, image_size: size }), DELAY_MS);
    }
  }

  /** @param {Record<string, string>} body */
  async ask(body) {
    this.asking = new AbortController();
    const { signal } = this.asking;
    try {
      const made = await this.api.post("v1/preprocess", body, signal);
      this.image.src = this.api.ownFile(made.control_image) ?? "";
      await this.image.decode();
      signal.throwIfAborted();
      this.image.hidden = false;
      this.words.hidden = true;
      if (!this.draft.natural) this.draft.measure([made.width, made.height], looksLikePhotograph(this.image));
    } catch (error) {
      if (!signal.aborted) this.tell(saying(error).replace(/^\w+: /, ""));
    }
  }

  /** @param {string} words */
  tell(words) {
    this.image.hidden = true;
    this.words.hidden = false;
    this.words.textContent = words;
  }
}

/**
 * A URL that is being typed is not worth asking about.
 * @param {string} url
 */
function looksWhole(url) {
  return url.startsWith("data:image/") || url.includes("/v1/files/") || /^https?:\/\/[^/]+\.[^/]+\/.+/.test(url);
}
