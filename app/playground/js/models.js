/** Which model a request goes to: the one that was chosen, or its sibling that needs no image where none is given. */

/** @import {Model, Values} from "./types" */

/** Fields whose presence tells models apart, and what a model with one takes, in words. */
const IMAGE = "image_url";
const LORAS = "loras";
const MASK = "mask_image_url";
const STRENGTH = "strength";

/**
 * What a model takes: "Text only", "With an image and LoRAs", "Part of an image anew".
 * @param {Model} model
 */
export function takes(model) {
  const loras = has(model, LORAS);
  if (has(model, MASK)) return loras ? "Part of an image anew, with LoRAs" : "Part of an image anew";
  if (has(model, STRENGTH)) return loras ? "An image changed, with LoRAs" : "An image changed";
  const image = has(model, IMAGE);
  if (!loras) return image ? "With an image" : "Text only";
  return image ? "With an image and LoRAs" : "With LoRAs";
}

/**
 * The model that these values are for, and what it takes of them. An image that is wanted and not given means the
 * largest model without one whose fields the chosen model has too; without LoRAs, the smallest.
 * @param {Model[]} models
 * @param {Model} chosen
 * @param {Values} values
 * @returns {{model: Model, values: Values}}
 */
export function target(models, chosen, values) {
  if (values[IMAGE] || !has(chosen, IMAGE)) return { model: chosen, values };
  const wanted = values[LORAS]?.length ? [LORAS] : [];
  const siblings = models
    .filter((model) => !has(model, IMAGE) && model.fields.every((field) => has(chosen, field.name)))
    .filter((model) => wanted.every((name) => has(model, name)))
    .sort((one, other) => one.fields.length - other.fields.length);
  return siblings.length
    ? { model: siblings[0], values: fitting(siblings[0], chosen, values) }
    : { model: chosen, values };
}

/**
 * The values without those of fields that only the chosen model has, and those that mean nothing to the other one.
 * @param {Model} model
 * @param {Model} chosen
 * @param {Values} values
 */
function fitting(model, chosen, values) {
  const kept = Object.entries(values).filter(([name, value]) => {
    const field = model.fields.find((each) => each.name === name);
    return field ? !field.options || field.options.includes(value) : !has(chosen, name);
  });
  return Object.fromEntries(kept);
}

/**
 * @param {Model} model
 * @param {string} name
 */
const has = (model, name) => model.fields.some((field) => field.name === name);
