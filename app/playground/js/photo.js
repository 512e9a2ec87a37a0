/** Telling a photograph from a control map, by a glance at its colours. */

const SIDE = 64;
const DARK = 40;
const BRIGHT = 215;
/** Of a map's pixels at least so many are its black or white ground. */
const GROUND = 0.5;
/** Mean distance of a pixel's parts (0 to 255) above which a picture has colours; JPEG gives grey some. */
const COLOURED = 8;

/**
 * Whether a loaded picture of this server has colours and no ground of one shade: edges, lines and skeletons have
 * the ground, depth is grey.
 * @param {HTMLImageElement} image
 */
export function looksLikePhotograph(image) {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return false;
  context.drawImage(image, 0, 0, SIDE, SIDE);
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  let dark = 0;
  let bright = 0;
  let spread = 0;
  for (let at = 0; at < data.length; at += 4) {
    const most = Math.max(data[at], data[at + 1], data[at + 2]);
    const least = Math.min(data[at], data[at + 1], data[at + 2]);
    dark += Number(most < DARK);
    bright += Number(least > BRIGHT);
    spread += most - least;
  }
  const pixels = SIDE * SIDE;
  return spread / pixels > COLOURED && Math.max(dark, bright) / pixels < GROUND;
}
