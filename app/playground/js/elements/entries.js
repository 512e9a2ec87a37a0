/** A list of requests in which the item of one that has not changed stays: what is pressed there is not lost. */

/** @import {Entry} from "../types" */

export class Entries {
  /**
   * By the request's id and status.
   * @type {Map<string, HTMLElement>}
   */
  items = new Map();

  /**
   * @param {HTMLElement} list
   * @param {(entry: Entry) => HTMLElement} make an item for an entry
   */
  constructor(list, make) {
    this.list = list;
    this.make = make;
  }

  /** @param {Entry[]} entries */
  show(entries) {
    const before = this.items;
    const itemOf = (/** @type {Entry} */ entry) => {
      const key = `${entry.request_id} ${entry.status}`;
      return /** @type {[string, HTMLElement]} */ ([key, before.get(key) ?? this.make(entry)]);
    };
    this.items = new Map(entries.map(itemOf));
    const items = [...this.items.values()];
    for (const child of [...this.list.children]) if (!items.some((item) => item === child)) child.remove();
    // One that is moved loses its press too; only those that come are put in.
    for (const [index, item] of items.entries()) {
      const there = this.list.children[index] ?? null;
      if (there !== item) this.list.insertBefore(item, there);
    }
  }
}
