/** Requests to begin with, one for each way to say what a picture shows. */

import { remember } from "./fields/filenames.js";

/** @import {Api} from "./api.js" */
/** @import {Draft} from "./draft.js" */
/** @import {Values} from "./types" */

/**
 * `card`: the picture on its card; `image`: the control image; files of the playground.
 * @typedef {{name: string, title: string, card: string, image?: string, values: Values}} Example
 */

/** @type {Example[]} */
export const EXAMPLES = [
  {
    name: "text",
    title: "From words",
    card: "examples/text.jpg",
    values: { prompt: "A red ball on grass under a clear blue sky" },
  },
  {
    name: "edges",
    title: "From a photo’s edges",
    card: "examples/edges.jpg",
    image: "example.jpg",
    values: {
      prompt: "A blue ball and a yellow cone on sand under a sunset sky",
      preprocess: "canny",
      control_end: 0.8,
    },
  },
  {
    name: "depth",
    title: "From a depth map",
    card: "examples/depth.jpg",
    image: "examples/depth-map.png",
    values: { prompt: "A purple box and an orange ball on a wooden floor", preprocess: "none", control_end: 0.8 },
  },
  {
    name: "pose",
    title: "From a pose",
    card: "examples/pose.jpg",
    image: "examples/pose-map.png",
    values: { prompt: "A green figure waving on sand under a clear blue sky", preprocess: "none", control_end: 0.8 },
  },
];

/**
 * Where a file of the playground is.
 * @param {string} name
 */
export const assetUrl = (name) => new URL(`../${name}`, import.meta.url).href;

/**
 * Puts an example into a draft.
 * @param {Api} api
 * @param {Draft} draft of a model that takes an image, where the example has one
 * @param {Example} example
 */
export async function fillExample(api, draft, { image, values }) {
  const known = Object.entries(values).filter(([name]) => draft.field(name));
  if (!image) return draft.restore(Object.fromEntries(known));
  const answer = await fetch(assetUrl(image));
  if (!answer.ok) throw new Error("The example's image did not arrive; try again.");
  const blob = await answer.blob();
  const file = new File([blob], image.split("/").at(-1) ?? image, { type: blob.type });
  const url = await api.upload(file);
  remember(url, file);
  draft.restore({ ...Object.fromEntries(known), image_url: url });
}
