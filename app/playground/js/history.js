/** The caller's requests as the server keeps them, newest first. */

import { saying } from "./api.js";

/** @import {Api} from "./api.js" */
/** @import {Entry, Picture, Result} from "./types" */

const PAGE = 24;
const PENDING_MS = 2500;

/** Fires `change`. Loads itself again and again while a request of it is not finished. */
export class History extends EventTarget {
  /** @type {Entry[]} */
  entries = [];
  /** @type {string | null} */
  cursor = null;
  fault = "";
  /** Whether the server has answered once. */
  loaded = false;
  /** Counts refreshes and deletions: an answer to a refresh that came before another of them is old. */
  turn = 0;
  timer = 0;

  /** @param {Api} api */
  constructor(api) {
    super();
    this.api = api;
  }

  /** Whether older ones are left to load. */
  get more() {
    return this.cursor !== null;
  }

  /** Loads the newest page again; older ones that were loaded stay. */
  async refresh() {
    const turn = ++this.turn;
    await this.load("", (fresh, cursor) => {
      if (turn !== this.turn) return;
      const oldest = fresh.at(-1)?.created_at ?? "";
      const ids = new Set(fresh.map((entry) => entry.request_id));
      const isOlder = (/** @type {Entry} */ entry) => entry.created_at <= oldest && !ids.has(entry.request_id);
      const older = cursor ? this.entries.filter(isOlder) : [];
      this.entries = [...fresh, ...older];
      if (!older.length) this.cursor = cursor;
    });
    clearTimeout(this.timer);
    if (this.entries.some(isPending)) this.timer = setTimeout(() => this.refresh(), PENDING_MS);
  }

  async loadMore() {
    const from = this.cursor;
    await this.load(`&cursor=${encodeURIComponent(from ?? "")}`, (page, cursor) => {
      // A second press asked for the same page.
      if (this.cursor !== from) return;
      this.entries = [...this.entries, ...page];
      this.cursor = cursor;
    });
  }

  /**
   * @param {string} query
   * @param {(page: Entry[], cursor: string | null) => void} take
   */
  async load(query, take) {
    try {
      const { requests, next_cursor: cursor } = await this.api.get(`v1/requests?limit=${PAGE}${query}`);
      this.loaded = true;
      this.fault = "";
      take(requests, cursor ?? null);
    } catch (error) {
      this.fault = saying(error);
    }
    this.dispatchEvent(new Event("change"));
  }

  /** @param {string} requestId */
  async remove(requestId) {
    await this.api.delete(`v1/requests/${requestId}`);
    this.turn++;
    this.entries = this.entries.filter((entry) => entry.request_id !== requestId);
    this.dispatchEvent(new Event("change"));
  }

  /** @param {string} requestId */
  async stop(requestId) {
    await this.api.post(`v1/requests/${requestId}/cancel?force=true`);
    await this.refresh();
  }

  /**
   * The loaded entries in whose prompt, LoRAs, seed or id every word of `text` occurs.
   * @param {string} text
   */
  search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return this.entries.filter((entry) => {
      const { prompt = "", loras = [] } = entry.input ?? {};
      const paths = loras.map((/** @type {{path: string}} */ lora) => lora.path).join(" ");
      const seed = entry.seed === undefined ? "" : `seed ${entry.seed}`;
      const found = `${prompt} ${entry.expanded_prompt ?? ""} ${paths} ${seed} ${entry.request_id}`.toLowerCase();
      return words.every((word) => found.includes(word));
    });
  }
}

/** @param {Entry} entry */
export const isPending = (entry) => entry.status === "in_queue" || entry.status === "in_progress";

/** In words, what became of an entry that has no picture. */
export const WORDS = {
  in_queue: "in line",
  in_progress: "running",
  failed: "failed",
  cancelled: "stopped",
  succeeded: "",
};

/**
 * What an entry is called.
 * @param {Entry} entry
 */
export function nameOf(entry) {
  const prompt = entry.input?.prompt ?? entry.request_id;
  return WORDS[entry.status] ? `${prompt} (${WORDS[entry.status]})` : prompt;
}

/**
 * @param {Result} result
 * @param {Api} api
 * @returns {Picture[]}
 */
export function picturesOf({ output, seed, seeds }, api) {
  const urls = output?.images ?? (output?.image ? [output.image] : []);
  return urls.map((url, index) => ({ url, shown: api.ownFile(url) ?? url, seed: seeds?.[index] ?? seed }));
}
