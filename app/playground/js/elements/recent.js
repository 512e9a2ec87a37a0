/** The latest requests as a strip under the picture; those that wait or run can be stopped there. */

import { h, iconButton } from "../dom.js";
import { isPending, nameOf } from "../history.js";
import { Entries } from "./entries.js";
import { thumbnail } from "./thumbnail.js";

/** @import {Api} from "../api.js" */
/** @import {History} from "../history.js" */
/** @import {Entry} from "../types" */

const LATEST = 12;

export class Recent extends HTMLElement {
  /** @type {Api} */
  api;
  /** @type {History} */
  history;
  /** @type {(entry: Entry) => void} */
  onOpen;
  /** @type {(entry: Entry) => void} */
  onStop;
  strip = h("ul", { class: "strip" });
  items = new Entries(this.strip, (entry) => this.item(entry));
  current = "";

  /** @param {{api: Api, history: History, onOpen: (entry: Entry) => void, onStop: (entry: Entry) => void}} context */
  setup(context) {
    Object.assign(this, context);
    const all = h("span", { class: "aside" }, h("a", { href: "#gallery" }, "Show all"));
    this.replaceChildren(h("div", { class: "head" }, h("h2", {}, "History"), all), this.strip);
    this.history.addEventListener("change", () => this.refresh());
    this.refresh();
  }

  refresh() {
    const entries = this.history.entries.slice(0, LATEST);
    this.hidden = entries.length === 0;
    const focused = this.strip.contains(document.activeElement) ? document.activeElement?.id : undefined;
    this.items.show(entries);
    for (const each of this.strip.querySelectorAll(".thumb")) {
      each.setAttribute("aria-current", String(each.id === idOf(this.current)));
    }
    if (focused && focused !== document.activeElement?.id) document.getElementById(focused)?.focus();
  }

  /** @param {Entry} entry */
  item(entry) {
    const name = nameOf(entry);
    const facts = { id: idOf(entry.request_id), title: name, "aria-label": `Show: ${name}` };
    const open = h(
      "button",
      { type: "button", class: "thumb", ...facts, onclick: () => this.onOpen(entry) },
      thumbnail(entry, this.api),
    );
    const stop = isPending(entry) && iconButton("stop", `Stop: ${name}`, () => this.onStop(entry));
    return h("li", {}, open, stop);
  }

  /** @param {string} requestId the one on the stage */
  set shown(requestId) {
    this.current = requestId;
    this.refresh();
  }
}

/** @param {string} requestId */
const idOf = (requestId) => `recent-${requestId}`;

customElements.define("zt-recent", Recent);
