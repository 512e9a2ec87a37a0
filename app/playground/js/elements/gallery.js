/** The history as a gallery: searched, filtered, and several of it saved or deleted at once. */

import { saying } from "../api.js";
import { announce, button, confirmed, h, iconButton } from "../dom.js";
import { saveAll } from "../download.js";
import { isPending, nameOf, picturesOf } from "../history.js";
import { Entries } from "./entries.js";
import { thumbnail } from "./thumbnail.js";

/** @import {Api} from "../api.js" */
/** @import {History} from "../history.js" */
/** @import {Entry} from "../types" */

export class Gallery extends HTMLElement {
  /** @type {Api} */
  api;
  /** @type {History} */
  history;
  /** @type {(entry: Entry) => void} */
  onOpen;
  /** @type {(entry: Entry) => void} */
  onRestore;
  /** Ids of the requests that are selected. */
  selected = new Set();
  /** Those of which `chosen` tells. */
  told = "";
  search = h("input", {
    type: "search",
    placeholder: "Search prompts, LoRAs, seeds",
    "aria-label": "Search the gallery",
  });
  all = h("input", { type: "checkbox", role: "switch", class: "switch", id: "gallery-all" });
  count = h("span", { class: "note", role: "status" });
  chosen = h("div", { class: "chosen", hidden: true });
  grid = h("ul", { class: "grid" });
  cards = new Entries(this.grid, (entry) => this.card(entry));
  empty = h("p", { class: "empty" });
  older = button(null, "Load older ones", () => this.history.loadMore());

  /** @param {{api: Api, history: History, onOpen: (entry: Entry) => void, onRestore: (entry: Entry) => void}} context */
  setup(context) {
    Object.assign(this, context);
    this.search.addEventListener("input", () => this.refresh());
    this.all.addEventListener("change", () => this.refresh());
    const failed = h("label", { class: "failed-too", htmlFor: this.all.id }, this.all, "Failed ones too");
    const bar = h("div", { class: "gallery-bar" }, h("h2", {}, "Gallery"), this.search, failed, this.count);
    this.replaceChildren(bar, this.chosen, this.grid, this.empty, this.older);
    this.history.addEventListener("change", () => this.refresh());
    this.refresh();
  }

  get found() {
    const found = this.history.search(this.search.value);
    return this.all.checked ? found : found.filter((entry) => entry.status === "succeeded" || isPending(entry));
  }

  refresh() {
    const { found } = this;
    const { entries, more } = this.history;
    for (const id of this.selected) if (!found.some((entry) => entry.request_id === id)) this.selected.delete(id);
    this.cards.show(found);
    this.older.hidden = !more;
    this.count.textContent = entries.length ? `${found.length} of ${entries.length}${more ? "+" : ""}` : "";
    this.empty.hidden = found.length > 0;
    this.empty.textContent = this.emptyWords();
    this.showChosen();
  }

  emptyWords() {
    if (this.history.fault) return this.history.fault;
    if (!this.history.loaded) return "Asking the server for your pictures…";
    if (this.history.entries.length) return "Nothing here matches.";
    return "Nothing here yet: your pictures stay on the server and show up here.";
  }

  /** @param {Entry} entry */
  card(entry) {
    const name = nameOf(entry);
    const { request_id: id } = entry;
    const pictures = picturesOf(entry, this.api);
    const select = h("input", {
      type: "checkbox",
      class: "select",
      "aria-label": `Select: ${name}`,
      checked: this.selected.has(id),
    });
    select.addEventListener("change", () => {
      if (select.checked) this.selected.add(id);
      else this.selected.delete(id);
      this.showChosen();
    });
    const remove = iconButton("trash", `Delete: ${name}`, () => {});
    return h(
      "li",
      { class: "card" },
      h(
        "button",
        { type: "button", class: "open", "aria-label": `Show: ${name}`, onclick: () => this.onOpen(entry) },
        thumbnail(entry, this.api),
      ),
      select,
      h("p", { class: "caption", title: name }, entry.input?.prompt ?? id),
      h(
        "div",
        { class: "card-line" },
        h("time", { class: "note", dateTime: entry.created_at }, when(entry.created_at)),
        pictures.length > 0 && iconButton("download", `Download: ${name}`, () => saveAll([entry], this.api)),
        iconButton("restore", `Restore settings: ${name}`, () => this.onRestore(entry)),
        isPending(entry) ? "" : confirmed(remove, "Delete?", () => this.discard([entry])),
      ),
    );
  }

  /** What can be done with those that are selected. */
  showChosen() {
    const entries = this.history.entries.filter((entry) => this.selected.has(entry.request_id));
    const told = entries.map((entry) => entry.request_id).join();
    if (told === this.told) return;
    this.told = told;
    this.chosen.hidden = entries.length === 0;
    const remove = confirmed(
      button("trash", "Delete", () => {}),
      `Delete ${entries.length}?`,
      () => this.discard(entries),
    );
    this.chosen.replaceChildren(
      h("span", { role: "status" }, `${entries.length} selected`),
      button("download", "Download", () => saveAll(entries, this.api)),
      remove,
      button(null, "Select none", () => this.selectNone()),
    );
  }

  selectNone() {
    this.selected.clear();
    for (const box of /** @type {NodeListOf<HTMLInputElement>} */ (this.grid.querySelectorAll(".select"))) {
      box.checked = false;
    }
    this.refresh();
    this.search.focus();
  }

  /** @param {Entry[]} entries */
  async discard(entries) {
    try {
      for (const { request_id: id } of entries) await this.history.remove(id);
      announce("Deleted.");
      this.search.focus();
    } catch (error) {
      this.empty.hidden = false;
      this.empty.textContent = saying(error);
    }
  }
}

/** @param {string} timestamp */
function when(timestamp) {
  const parts = /** @type {const} */ ({ month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  return new Date(timestamp).toLocaleString(undefined, parts);
}

customElements.define("zt-gallery", Gallery);
