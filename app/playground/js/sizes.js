/** The pixel sizes behind the names of `image_size`, to draw their shapes. */

/** @import {Size} from "./types" */

/** @type {Record<string, Size>} */
export const SIZES = {
  square_hd: [1024, 1024],
  square: [512, 512],
  portrait_4_3: [768, 1024],
  portrait_16_9: [576, 1024],
  landscape_4_3: [1024, 768],
  landscape_16_9: [1024, 576],
};

/**
 * "landscape_4_3" is `["Landscape", "4:3"]`, "square_hd" is `["Square HD", ""]`.
 * @param {string} name
 */
export function sizeLabel(name) {
  const [, words, ratio] = /** @type {RegExpMatchArray} */ (name.match(/^(.*?)(?:_(\d+_\d+))?$/));
  const label = words.replaceAll("_", " ").replace(/\bhd\b/, "HD");
  return [label[0].toUpperCase() + label.slice(1), (ratio ?? "").replace("_", ":")];
}

/**
 * Pixels of a size, as text; `natural` is that of the control image, if known.
 * @param {string | undefined} imageSize
 * @param {Size | null} natural
 */
export function pixels(imageSize, natural) {
  const known = SIZES[imageSize ?? ""] ?? natural;
  return known ? known.join(" × ") : "as the image";
}

/**
 * Width over height of the picture to come.
 * @param {string | undefined} imageSize
 * @param {Size | null} natural
 */
export function aspectOf(imageSize, natural) {
  const [width, height] = SIZES[imageSize ?? ""] ?? natural ?? [1, 1];
  return width / height;
}
