/** Which element shows which field: by its name where that says more than its type. */

import "./image.js";
import "./loras.js";
import "./plain.js";
import "./prompt.js";
import "./seed.js";
import "./size.js";
import "./window.js";

const BY_NAME = {
  prompt: "zt-prompt",
  negative_prompt: "zt-prompt",
  image_url: "zt-image",
  loras: "zt-loras",
  image_size: "zt-size",
  seed: "zt-seed",
};

/** Shown by another field: `[name, the field that shows it]`. */
const WITHIN = { enable_prompt_expansion: "prompt" };

const WINDOW = ["control_start", "control_end"];

const SECTIONS = [
  ["Prompt", ["prompt", "negative_prompt", "enable_prompt_expansion"]],
  ["Control", ["image_url", "preprocess", "control_scale", ...WINDOW]],
  ["LoRAs", ["loras"]],
  ["Picture", ["image_size", "num_inference_steps", "seed", "num_images", "output_format"]],
];

/** The fields in the sections of the form, fields that no section names at the end of the last: `[title, fields]`. */
export function sections(fields) {
  const named = new Set(SECTIONS.flatMap(([, names]) => names));
  return SECTIONS.map(([title, names], index) => {
    const own = names.map((name) => fields.find((field) => field.name === name)).filter(Boolean);
    const others = index === SECTIONS.length - 1 ? fields.filter((field) => !named.has(field.name)) : [];
    return [title, [...own, ...others]];
  }).filter(([, own]) => own.length);
}

/** The element for a field; null where another field shows it. */
export function elementFor(field, fields, context) {
  const has = (name) => fields.some((each) => each.name === name);
  if (WITHIN[field.name] && has(WITHIN[field.name])) return null;
  if (WINDOW.includes(field.name) && WINDOW.every(has)) {
    if (field.name !== WINDOW[0]) return null;
    const description = "The share of the steps in which the control image guides the picture.";
    return document.createElement("zt-window").setup({ ...field, title: "Control window", description }, context);
  }
  return document.createElement(tagFor(field)).setup(field, context);
}

function tagFor(field) {
  const byName = BY_NAME[field.name];
  if (byName && (field.name !== "image_size" || field.options)) return byName;
  if (field.options) return "zt-choice";
  if (field.type === "boolean") return "zt-switch";
  if (field.type === "number" || field.type === "integer") {
    return field.minimum !== undefined && field.maximum !== undefined ? "zt-slider" : "zt-number";
  }
  return field.type === "string" ? "zt-text" : "zt-json-field";
}
