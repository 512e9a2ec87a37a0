/** Where the picture comes to be: examples, a preview with its progress, the picture, or why there is none. */

import { button, h, icon, pictureImage } from "../dom.js";
import { fileName, saveAll } from "../download.js";
import { assetUrl, EXAMPLES } from "../examples.js";
import { picturesOf } from "../history.js";
import { aspectOf } from "../sizes.js";
import "./compare.js";
import "./progress.js";

/** @import {Api} from "../api.js" */
/** @import {Example} from "../examples.js" */
/** @import {Picture, Run, Shown, Status} from "../types" */

/**
 * @typedef {object} StageActions
 * @property {Api} api
 * @property {(example: Example) => void} onExample
 * @property {(url: string) => void} onReuse
 * @property {(shown: Shown) => void} onRestore
 * @property {(shown: Shown) => void} onNextSeed
 * @property {(shown: Shown, index: number) => void} onOpen
 * @property {(shown: Shown | null, picture?: Picture) => void} onShow what there is to tell about it
 */

export class Stage extends HTMLElement {
  /** @type {StageActions} */
  to;
  frame = h("div", { class: "frame" });
  progress = h("zt-progress", {});
  actions = h("div", { class: "actions" });
  preview = h("img", { alt: "Preview", hidden: true });

  /** @param {StageActions} actions */
  setup(actions) {
    this.to = actions;
    this.replaceChildren(this.frame, h("div", { class: "under-frame" }, this.progress, this.actions));
    this.rest();
  }

  /** @param {number} aspect width over height of the picture to come, so that nothing moves when it comes */
  set aspect(aspect) {
    this.style.setProperty("--aspect", String(aspect));
  }

  /** @param {"rest" | "running" | "done" | "failed"} name */
  state(name) {
    this.dataset.state = name;
    this.progress.hidden = name !== "running";
    this.actions.hidden = name !== "done" && name !== "failed";
  }

  rest() {
    this.state("rest");
    const cards = EXAMPLES.map((example) =>
      h(
        "button",
        { type: "button", class: "example", onclick: () => this.to.onExample(example) },
        h("img", { src: assetUrl(example.card), alt: "", width: 320, height: 240 }),
        h("strong", {}, example.title),
        h("span", { class: "note" }, example.values.prompt),
      ),
    );
    const words = h("p", {}, h("strong", {}, "Write a prompt and run it"), ", or begin with an example:");
    this.frame.replaceChildren(h("div", { class: "rest" }, words, h("div", { class: "examples" }, ...cards)));
    this.to.onShow(null);
  }

  /** @param {Run} run */
  begin({ input, size }) {
    this.state("running");
    this.to.onShow(null);
    if (input) this.aspect = aspectOf(input.image_size, size);
    const several = input && input.num_images > 1;
    this.preview = h("img", { class: several ? "preview several" : "preview", alt: "Preview", hidden: true });
    this.frame.replaceChildren(h("div", { class: "waiting-room", "aria-hidden": "true" }), this.preview);
    this.progress.begin(input);
  }

  /**
   * The status in words.
   * @param {Status} status
   */
  update(status) {
    if (status.preview && status.preview !== this.preview.src) {
      this.preview.src = status.preview;
      this.preview.hidden = false;
      const share = status.total_steps ? (status.step ?? 0) / status.total_steps : 0;
      this.preview.style.setProperty("--blur", `${Math.round((1 - share) * 10)}px`);
    }
    return this.progress.update(status);
  }

  /** @param {Shown} shown */
  finish(shown) {
    const { result } = shown;
    if (result.status === "cancelled") this.showEnd("Stopped", "No picture was made.", shown);
    else if (result.status !== "succeeded") this.showEnd("This did not work", result.error?.message ?? "", shown);
    else if (picturesOf(result, this.to.api).length > 1) this.showAll(shown);
    else this.showPicture(shown, 0);
  }

  /**
   * Several pictures side by side.
   * @param {Shown} shown
   */
  showAll(shown) {
    const pictures = picturesOf(shown.result, this.to.api);
    this.state("done");
    const tiles = pictures.map(({ shown: src, seed }, index) => {
      const label = `Picture ${index + 1} of ${pictures.length}, seed ${seed}`;
      const image = pictureImage(src, "");
      if (index === 0) image.addEventListener("load", () => this.shape(image));
      return h("button", { type: "button", "aria-label": label, onclick: () => this.pick(shown, index) }, image);
    });
    this.frame.replaceChildren(h("div", { class: "many", role: "group", "aria-label": "Pictures" }, ...tiles));
    const save = button("download", "Download all", () => saveAll([shown.result], this.to.api));
    this.actions.replaceChildren(save, this.nextSeed(shown), this.restore(shown));
    this.to.onShow(shown);
  }

  /**
   * @param {Shown} shown
   * @param {number} index
   */
  pick(shown, index) {
    this.showPicture(shown, index);
    this.actions.querySelector("button")?.focus();
  }

  /**
   * One of the request's pictures.
   * @param {Shown} shown
   * @param {number} index
   */
  showPicture(shown, index) {
    const { result, input } = shown;
    this.state("done");
    const pictures = picturesOf(result, this.to.api);
    const picture = pictures[index];
    const source = result.control_image ?? input?.image_url;
    const compare = h("zt-compare", {});
    const alt = input?.prompt ? `Made of: ${input.prompt}` : "The picture";
    compare.show({ under: picture.shown, over: source ? this.to.api.showable(source) : null, alt });
    compare.picture.addEventListener("load", () => this.shape(compare.picture));
    const whole = { class: "whole", "aria-label": "Open at full size", title: "Open at full size" };
    const open = h("button", { type: "button", ...whole, onclick: () => this.to.onOpen(shown, index) }, icon("zoom"));
    this.frame.replaceChildren(compare, open);
    const toggle = button(null, "Compare", () => {
      compare.comparing = !compare.comparing;
      toggle.setAttribute("aria-pressed", String(compare.comparing));
      open.hidden = compare.comparing;
      if (compare.comparing) compare.slider.focus();
    });
    toggle.setAttribute("aria-pressed", "false");
    this.actions.replaceChildren(
      pictures.length > 1 ? button("image", `All ${pictures.length}`, () => this.showAll(shown)) : "",
      compare.over ? toggle : "",
      this.download(shown, pictures, index),
      this.nextSeed(shown),
      button("reuse", "Use as image", () => this.to.onReuse(picture.url)),
      this.restore(shown),
    );
    this.to.onShow(shown, picture);
  }

  /** @param {HTMLImageElement} image */
  shape({ naturalWidth, naturalHeight }) {
    this.aspect = naturalWidth / naturalHeight;
  }

  /**
   * @param {Shown} shown
   * @param {Picture[]} pictures
   * @param {number} index
   */
  download({ result }, pictures, index) {
    const link = { class: "quiet", href: pictures[index].shown, download: fileName(result, pictures, index) };
    return h("a", link, icon("download"), "Download");
  }

  /** @param {Shown} shown */
  nextSeed(shown) {
    return shown.input ? button("next", "Next seed", () => this.to.onNextSeed(shown)) : "";
  }

  /** @param {Shown} shown */
  restore(shown) {
    const title = "Put every setting of this request back into the form";
    return shown.input ? button("restore", "Restore", () => this.to.onRestore(shown), { title }) : "";
  }

  /**
   * @param {string} title
   * @param {string} message
   * @param {Shown} shown
   */
  showEnd(title, message, shown) {
    this.state("failed");
    const failed = shown.result.status === "failed";
    const own = { class: failed ? "end failed" : "end", role: failed ? "alert" : null };
    this.frame.replaceChildren(h("div", own, h("p", { class: "title" }, title), h("p", {}, message)));
    this.actions.replaceChildren(this.restore(shown));
    this.to.onShow(failed ? shown : null);
  }
}

customElements.define("zt-stage", Stage);
