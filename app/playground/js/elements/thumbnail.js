/** A request in small: its picture, several as a grid with their number, or what became of it. */

import { h, pictureImage } from "../dom.js";
import { picturesOf, WORDS } from "../history.js";

/** @import {Api} from "../api.js" */
/** @import {Entry} from "../types" */

/**
 * @param {Entry} entry
 * @param {Api} api
 */
export function thumbnail(entry, api) {
  const pictures = picturesOf(entry, api);
  if (!pictures.length) return h("span", { class: `no-picture ${entry.status}` }, WORDS[entry.status] ?? entry.status);
  const images = pictures.map(({ shown }) => pictureImage(shown, "", { loading: "lazy" }));
  if (images.length === 1) return images[0];
  return h("span", { class: "many" }, ...images, h("span", { class: "count" }, String(images.length)));
}
