/** What people call the fields and their values; a name that is not here is called what its schema calls it. */

/** @type {Record<string, string>} */
const TITLES = {
  preprocess: "Guide the picture by",
  control_scale: "Strength of the guide",
  control_start: "Guided steps",
  strength: "How far from the image",
  seed_variance: "How far the pictures differ",
  image_size: "Size",
  output_format: "File type",
};

/** @type {Record<string, Record<string, string>>} */
const OPTIONS = {
  preprocess: { none: "As it is", canny: "Edges", depth: "Depth", pose: "Pose" },
  output_format: { jpeg: "JPEG", png: "PNG", webp: "WebP" },
};

/** @param {{name: string, title: string}} field */
export const titleOf = ({ name, title }) => TITLES[name] ?? title;

/**
 * @param {string} name of the field
 * @param {string} option
 */
export const optionWord = (name, option) => OPTIONS[name]?.[option] ?? String(option);
