/** Saving pictures under names that say which request made them. */

import { h } from "./dom.js";
import { picturesOf } from "./history.js";

/** @import {Api} from "./api.js" */
/** @import {Picture, Result} from "./types" */

/** Browsers drop downloads that follow one another at once. */
const PAUSE_MS = 250;

/**
 * What a picture is called when it is saved.
 * @param {Result} result
 * @param {Picture[]} pictures
 * @param {number} index
 */
export function fileName(result, pictures, index) {
  const number = pictures.length > 1 ? `-${index + 1}` : "";
  return `zturbo-${result.request_id.slice(0, 8)}${number}.${pictures[index].shown.split(".").at(-1)}`;
}

/**
 * Saves every picture of these requests.
 * @param {Result[]} results
 * @param {Api} api
 */
export async function saveAll(results, api) {
  for (const result of results) {
    const pictures = picturesOf(result, api);
    for (const [index, { shown }] of pictures.entries()) {
      h("a", { href: shown, download: fileName(result, pictures, index) }).click();
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
