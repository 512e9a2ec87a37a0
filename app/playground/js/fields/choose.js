/** Which element shows which field: by its name where that says more than its type. */

import "./image.js";
import "./loras.js";
import "./mask.js";
import "./plain.js";
import "./preprocess.js";
import "./prompt.js";
import "./seed.js";
import "./seed_variance.js";
import "./size.js";
import "./window.js";

/** @import {Context, Field} from "../types" */
/** @import {Field as FieldElement} from "./field.js" */

/** @type {Record<string, string>} */
const BY_NAME = {
  prompt: "zt-prompt",
  image_url: "zt-image",
  mask_image_url: "zt-mask",
  preprocess: "zt-preprocess",
  loras: "zt-loras",
  image_size: "zt-size",
  seed: "zt-seed",
  seed_variance: "zt-seed-variance",
};

/** Of these, the ones that show a field with options only. */
const OF_OPTIONS = ["preprocess", "image_size"];

/**
 * Shown by another field: by name, the field that shows it.
 * @type {Record<string, string>}
 */
const WITHIN = { enable_prompt_expansion: "prompt" };

const WINDOW = ["control_start", "control_end"];

/** @type {[string, string[]][]} */
const SECTIONS = [
  ["Prompt", ["prompt", "enable_prompt_expansion"]],
  ["Control", ["image_url", "mask_image_url", "strength", "preprocess", "control_scale"]],
  ["LoRAs", ["loras"]],
  ["Picture", ["image_size", "num_images", "seed_variance", "seed"]],
];

/**
 * The fields in the sections of the form, as `[title, fields]`; what no section names comes last, under "Advanced".
 * @param {Field[]} fields
 * @returns {[string, Field[]][]}
 */
export function sections(fields) {
  const named = new Set(SECTIONS.flatMap(([, names]) => names));
  const isThere = (/** @type {Field | undefined} */ field) => field !== undefined;
  /** @type {[string, Field[]][]} */
  const own = SECTIONS.map(([title, names]) => [
    title,
    names.map((name) => fields.find((field) => field.name === name)).filter(isThere),
  ]);
  /** @type {[string, Field[]]} */
  const rest = ["Advanced", fields.filter((field) => !named.has(field.name))];
  return [...own, rest].filter(([, each]) => each.length > 0);
}

/**
 * The element for a field; null where another field shows it.
 * @param {Field} field
 * @param {Field[]} fields
 * @param {Context} context
 */
export function elementFor(field, fields, context) {
  const has = (/** @type {string} */ name) => fields.some((each) => each.name === name);
  if (WITHIN[field.name] && has(WITHIN[field.name])) return null;
  if (WINDOW.includes(field.name) && WINDOW.every(has)) {
    if (field.name !== WINDOW[0]) return null;
    const description = "The share of the steps in which the image guides the picture.";
    return make("zt-window", { ...field, description }, context);
  }
  return make(tagFor(field), field, context);
}

/**
 * @param {string} tag
 * @param {Field} field
 * @param {Context} context
 */
function make(tag, field, context) {
  return /** @type {FieldElement} */ (document.createElement(tag)).setup(field, context);
}

/** @param {Field} field */
function tagFor(field) {
  const byName = BY_NAME[field.name];
  if (byName && (field.options || !OF_OPTIONS.includes(field.name))) return byName;
  if (field.options) return "zt-choice";
  if (field.type === "boolean") return "zt-switch";
  if (field.type === "number" || field.type === "integer") {
    return field.minimum !== undefined && field.maximum !== undefined ? "zt-slider" : "zt-number";
  }
  return field.type === "string" ? "zt-text" : "zt-json-field";
}
