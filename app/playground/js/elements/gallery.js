/** The history twice: a strip of the latest under the picture, and a gallery with search. */

import { announce, confirmed, h, iconButton } from "../dom.js";
import { picturesOf } from "../history.js";

const LATEST = 12;
const WORDS = { in_queue: "in line", in_progress: "running", failed: "failed", cancelled: "stopped", succeeded: "" };

class HistoryView extends HTMLElement {
  /** `context`: {api, history, onOpen(entry), onRestore(entry)}. */
  setup(context) {
    Object.assign(this, context);
    this.build();
    this.history.addEventListener("change", () => this.refresh());
    this.refresh();
  }

  /** The picture of an entry, or what became of it. */
  thumbnail(entry) {
    const [picture] = picturesOf(entry, this.api);
    if (picture) return h("img", { src: picture.shown, alt: "", loading: "lazy", decoding: "async" });
    return h("span", { class: `no-picture ${entry.status}` }, WORDS[entry.status] ?? entry.status);
  }
}

function nameOf(entry) {
  const prompt = entry.input?.prompt ?? entry.request_id;
  return WORDS[entry.status] ? `${prompt} (${WORDS[entry.status]})` : prompt;
}

export class Recent extends HistoryView {
  build() {
    this.strip = h("ul", { class: "strip" });
    this.append(h("div", { class: "head" }, h("h2", {}, "History"), h("span", { class: "aside" }, h("a", { href: "#gallery" }, "Show all"))), this.strip);
  }

  refresh() {
    this.hidden = this.history.entries.length === 0;
    const items = this.history.entries.slice(0, LATEST).map((entry) => {
      const name = nameOf(entry);
      const open = h("button", { type: "button", class: "thumb", title: name, "aria-label": `Show: ${name}`, onclick: () => this.onOpen(entry) }, this.thumbnail(entry));
      open.setAttribute("aria-current", String(entry.request_id === this.current));
      return h("li", {}, open);
    });
    this.strip.replaceChildren(...items);
  }

  set shown(requestId) {
    this.current = requestId;
    this.refresh();
  }
}

export class Gallery extends HistoryView {
  build() {
    this.search = h("input", { type: "search", placeholder: "Search prompts, LoRAs, seeds", "aria-label": "Search the gallery" });
    this.search.addEventListener("input", () => this.refresh());
    this.count = h("span", { class: "note", role: "status" });
    this.grid = h("ul", { class: "grid" });
    this.empty = h("p", { class: "empty" });
    this.older = h("button", { type: "button", class: "quiet", onclick: () => this.history.loadMore() }, "Load older ones");
    this.append(h("div", { class: "gallery-bar" }, h("h2", {}, "Gallery"), this.search, this.count), this.grid, this.empty, this.older);
  }

  refresh() {
    const found = this.history.search(this.search.value);
    this.grid.replaceChildren(...found.map((entry) => this.card(entry)));
    this.older.hidden = !this.history.more;
    this.count.textContent = this.history.entries.length ? `${found.length} of ${this.history.entries.length}${this.history.more ? "+" : ""}` : "";
    this.empty.hidden = found.length > 0;
    this.empty.textContent = this.emptyWords();
  }

  emptyWords() {
    if (this.history.fault) return this.history.fault;
    if (!this.history.kept) return "This server keeps no history.";
    return this.history.entries.length ? "Nothing here matches." : "Nothing here yet: your pictures stay on the server and show up here.";
  }

  card(entry) {
    const name = nameOf(entry);
    const remove = confirmed(iconButton("trash", `Delete: ${name}`, () => {}), "Delete?", () => this.remove(entry));
    return h(
      "li",
      { class: "card" },
      h("button", { type: "button", class: "open", "aria-label": `Show: ${name}`, onclick: () => this.onOpen(entry) }, this.thumbnail(entry)),
      h("p", { class: "caption", title: name }, entry.input?.prompt ?? entry.request_id),
      h(
        "div",
        { class: "card-line" },
        h("time", { class: "note", dateTime: entry.created_at }, when(entry.created_at)),
        iconButton("restore", `Restore settings: ${name}`, () => this.onRestore(entry)),
        remove,
      ),
    );
  }

  async remove(entry) {
    try {
      await this.history.remove(entry.request_id);
      announce("Deleted.");
      this.search.focus();
    } catch (error) {
      this.empty.hidden = false;
      this.empty.textContent = error.message;
    }
  }
}

function when(timestamp) {
  return new Date(timestamp).toLocaleString(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
}

customElements.define("zt-recent", Recent);
customElements.define("zt-gallery", Gallery);
