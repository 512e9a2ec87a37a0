/** Where the picture comes to be: nothing yet, a preview with its progress, the picture, or why there is none. */

import { h, icon } from "../dom.js";
import { picturesOf } from "../history.js";
import { aspectOf } from "../sizes.js";
import "./compare.js";
import { facts } from "./facts.js";
import "./progress.js";

/** `context`: {api, onExample(), onLockSeed(seed), onReuse(url), onRestore(shown)}. */
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
      h(
        "div",
        { class: "rest" },
        icon("image"),
        h("p", {}, "Your picture appears here."),
        h("p", { class: "note" }, "Write a prompt, add a control image, and run."),
        h("button", { type: "button", class: "quiet", onclick: () => this.onExample() }, icon("spark"), "Run an example"),
      ),
    );
    this.facts.replaceChildren();
  }

  begin(input, natural) {
    this.state("running");
    this.facts.replaceChildren();
    if (input) this.aspect = aspectOf(input.image_size, natural);
    this.preview = h("img", { class: input?.num_images > 1 ? "preview several" : "preview", alt: "Preview", hidden: true });
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

  /** One of the request's pictures, the first unless another is picked. */
  showPicture({ result, input }, picked = 0) {
    this.state("done");
    const pictures = picturesOf(result, this.api);
    const { url, shown, seed } = pictures[picked];
    const source = result.control_image ?? input?.image_url;
    const compare = h("zt-compare", {});
    compare.show({ under: shown, over: source ? this.api.showable(source) : null, alt: input?.prompt ? `Made of: ${input.prompt}` : "The picture" });
    compare.picture.addEventListener("load", () => (this.aspect = compare.picture.naturalWidth / compare.picture.naturalHeight));
    this.frame.replaceChildren(compare);
    const toggle = h("button", { type: "button", class: "quiet", "aria-pressed": "false", hidden: !compare.comparable }, "Compare");
    toggle.addEventListener("click", () => {
      compare.comparing = !compare.comparing;
      toggle.setAttribute("aria-pressed", String(compare.comparing));
      if (compare.comparing) compare.slider.focus();
    });
    const number = pictures.length > 1 ? `-${picked + 1}` : "";
    const name = `zturbo-${result.request_id.slice(0, 8)}${number}.${shown.split(".").at(-1)}`;
    this.actions.replaceChildren(
      ...(pictures.length > 1 ? [this.picker(pictures, picked, { result, input })] : []),
      toggle,
      h("a", { class: "quiet", href: shown, download: name }, icon("download"), "Download"),
      h("button", { type: "button", class: "quiet", onclick: () => this.onReuse(url) }, icon("reuse"), "Use as control image"),
      this.restoreButton({ result, input }),
    );
    this.facts.replaceChildren(...facts({ ...result, seed }, input, { lockSeed: this.onLockSeed }));
  }

  picker(pictures, picked, request) {
    const pick = (index) => {
      this.showPicture(request, index);
      this.actions.querySelectorAll(".thumb")[index].focus();
    };
    const thumbs = pictures.map(({ shown, seed }, index) =>
      h(
        "button",
        { type: "button", class: "thumb", "aria-label": `Picture ${index + 1} of ${pictures.length}, seed ${seed}`, "aria-current": String(index === picked), onclick: () => pick(index) },
        h("img", { src: shown, alt: "", decoding: "async" }),
      ),
    );
    return h("div", { class: "picks", role: "group", "aria-label": "Pictures" }, ...thumbs);
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
