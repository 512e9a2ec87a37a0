/** Where the picture comes to be: nothing yet, a preview with its progress, the picture, or why there is none. */

import { h, icon } from "../dom.js";
import { aspectOf } from "../sizes.js";
import "./compare.js";
import { facts } from "./facts.js";
import "./progress.js";

/** `context`: {api, onLockSeed(seed), onReuse(url), onRestore(shown)}. */
export class Stage extends HTMLElement {
  setup(context) {
    Object.assign(this, context);
    this.frame = h("div", { class: "frame" });
    this.progress = h("zt-progress", {});
    this.actions = h("div", { class: "actions" });
    this.facts = h("div", { class: "about" });
    this.replaceChildren(this.frame, h("div", { class: "under-frame" }, this.progress, this.actions), this.facts);
    this.rest();
  }

  /** `aspect`: width over height of the picture to come, so that nothing moves when it comes. */
  set aspect(aspect) {
    this.style.setProperty("--aspect", aspect);
  }

  state(name) {
    this.dataset.state = name;
    this.progress.hidden = name !== "running";
    this.actions.hidden = name !== "done" && name !== "failed";
  }

  rest() {
    this.state("rest");
    this.frame.replaceChildren(
      h("div", { class: "rest" }, icon("image"), h("p", {}, "Your picture appears here."), h("p", { class: "note" }, "Write a prompt, add a control image, and run.")),
    );
    this.facts.replaceChildren();
  }

  begin(input, natural) {
    this.state("running");
    this.facts.replaceChildren();
    if (input) this.aspect = aspectOf(input.image_size, natural);
    this.preview = h("img", { class: "preview", alt: "Preview", hidden: true });
    this.frame.replaceChildren(h("div", { class: "waiting-room", "aria-hidden": "true" }), this.preview);
    this.progress.begin(input);
  }

  /** A status of `follow`; returns it in words. */
  update(status) {
    if (status.preview && status.preview !== this.preview.src) {
      this.preview.src = status.preview;
      this.preview.hidden = false;
      const share = status.total_steps ? (status.step ?? 0) / status.total_steps : 0;
      this.preview.style.setProperty("--blur", `${Math.round((1 - share) * 10)}px`);
    }
    return this.progress.update(status);
  }

  /** `shown`: {result, input}, `input` null when it is not known. */
  finish(shown) {
    const { result } = shown;
    if (result.status === "succeeded") this.showPicture(shown);
    else if (result.status === "cancelled") this.showEnd("Stopped", "No picture was made.", shown);
    else this.showEnd("This did not work", result.error?.message ?? "The request failed.", shown);
  }

  showPicture({ result, input }) {
    this.state("done");
    const url = this.api.ownFile(result.output.image ?? result.output.images[0]) ?? result.output.image;
    const source = result.control_image ?? input?.image_url;
    const compare = h("zt-compare", {});
    compare.show({ under: url, over: source ? this.api.showable(source) : null, alt: input?.prompt ? `Made of: ${input.prompt}` : "The picture" });
    compare.picture.addEventListener("load", () => (this.aspect = compare.picture.naturalWidth / compare.picture.naturalHeight));
    this.frame.replaceChildren(compare);
    const toggle = h("button", { type: "button", class: "quiet", "aria-pressed": "false", hidden: !compare.comparable }, "Compare");
    toggle.addEventListener("click", () => {
      compare.comparing = !compare.comparing;
      toggle.setAttribute("aria-pressed", String(compare.comparing));
      if (compare.comparing) compare.slider.focus();
    });
    const name = `zturbo-${result.request_id.slice(0, 8)}.${url.split(".").at(-1)}`;
    this.actions.replaceChildren(
      toggle,
      h("a", { class: "quiet", href: url, download: name }, icon("download"), "Download"),
      h("button", { type: "button", class: "quiet", onclick: () => this.onReuse(result.output.image) }, icon("reuse"), "Use as control image"),
      this.restoreButton({ result, input }),
    );
    this.facts.replaceChildren(...facts(result, input, { lockSeed: this.onLockSeed }));
  }

  restoreButton(shown) {
    return h(
      "button",
      { type: "button", class: "quiet", title: "Put every setting of this request back into the form", hidden: !shown.input, onclick: () => this.onRestore(shown) },
      icon("restore"),
      "Restore",
    );
  }

  showEnd(title, message, shown) {
    this.state("failed");
    const failed = shown.result.status === "failed";
    this.frame.replaceChildren(
      h("div", { class: failed ? "rest failed" : "rest", role: failed ? "alert" : null }, h("p", { class: "title" }, title), h("p", {}, message)),
    );
    this.actions.replaceChildren(this.restoreButton(shown));
    this.facts.replaceChildren(...(failed ? facts(shown.result, shown.input, { lockSeed: this.onLockSeed }) : []));
  }
}

customElements.define("zt-stage", Stage);
