/** The caller's requests as the server keeps them, newest first. */

const PAGE = 24;

/** Fires `change`. `entries`: bodies of the list route; `more`: whether older ones are left to load. */
export class History extends EventTarget {
  constructor(api) {
    super();
    this.api = api;
    this.entries = [];
    this.cursor = null;
    this.fault = "";
  }

  get kept() {
    return this.api.has("/v1/requests");
  }

  get more() {
    return this.cursor !== null;
  }

  /** Loads the newest page again; older ones that were loaded stay. */
  async refresh() {
    await this.load("", (fresh, cursor) => {
      const oldest = fresh.at(-1)?.created_at ?? "";
      const ids = new Set(fresh.map((entry) => entry.request_id));
      const older = cursor ? this.entries.filter((entry) => entry.created_at <= oldest && !ids.has(entry.request_id)) : [];
      this.entries = [...fresh, ...older];
      if (!older.length) this.cursor = cursor;
    });
  }

  async loadMore() {
    await this.load(`&cursor=${encodeURIComponent(this.cursor)}`, (page, cursor) => {
      this.entries = [...this.entries, ...page];
      this.cursor = cursor;
    });
  }

  async load(query, take) {
    if (!this.kept) return;
    try {
      const { requests, next_cursor: cursor } = await this.api.get(`v1/requests?limit=${PAGE}${query}`);
      this.fault = "";
      take(requests, cursor ?? null);
    } catch (error) {
      this.fault = error.message;
    }
    this.dispatchEvent(new Event("change"));
  }

  async remove(requestId) {
    await this.api.delete(`v1/requests/${requestId}`);
    this.entries = this.entries.filter((entry) => entry.request_id !== requestId);
    this.dispatchEvent(new Event("change"));
  }

  /** The loaded entries in whose prompt, LoRAs, seed or id every word of `text` occurs. */
  search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return this.entries.filter((entry) => {
      const { prompt = "", loras = [] } = entry.input ?? {};
      const paths = loras.map((lora) => lora.path).join(" ");
      const seed = entry.seed === undefined || entry.seed === null ? "" : `seed ${entry.seed}`;
      const found = `${prompt} ${entry.expanded_prompt ?? ""} ${paths} ${seed} ${entry.request_id}`.toLowerCase();
      return words.every((word) => found.includes(word));
    });
  }
}

/** The pictures of an entry or result: `{url, shown, seed}`, `shown` the URL under which this page may load it. */
export function picturesOf({ output, seed, seeds }, api) {
  const urls = output?.images ?? (output?.image ? [output.image] : []);
  return urls.map((url, index) => ({ url, shown: api.ownFile(url) ?? url, seed: seeds?.[index] ?? seed }));
}
