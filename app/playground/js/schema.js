/** From the JSON schema of a model's input to the list of its fields. */

/** @import {Dialect, Field, Model} from "./types" */

/** @typedef {Record<string, any>} Schema */

/**
 * A model of the server's list.
 * @param {{model_id: string, display_name: string, input_schema: Schema, dialects: Dialect[]}} body
 * @returns {Model}
 */
export function readModel({ model_id: id, display_name: name, input_schema: schema, dialects }) {
  return { id, name, fields: readFields(schema), dialects };
}

/**
 * @param {Schema} schema
 * @param {Record<string, Schema>} definitions
 * @returns {Field[]}
 */
function readFields(schema, definitions = schema.$defs ?? {}) {
  const required = new Set(schema.required ?? []);
  return Object.entries(/** @type {Record<string, Schema>} */ (schema.properties ?? {})).map(([name, property]) => {
    const facts = resolve(property, definitions);
    const items = facts.items ? resolve(facts.items, definitions) : null;
    /** @type {Field} */
    const field = {
      name,
      title: property.title ?? facts.title ?? name,
      description: property.description ?? facts.description ?? "",
      type: facts.type ?? "any",
      options: facts.enum,
      unavailable: readUnavailable(property["x-availability"] ?? {}),
      minimum: facts.minimum,
      maximum: facts.maximum,
      maxItems: facts.maxItems,
      fields: items?.properties ? readFields(items, definitions) : undefined,
      required: required.has(name),
      example: (property.examples ?? facts.examples)?.[0],
    };
    field.initial = property.default ?? facts.default ?? (field.required ? empty(field) : undefined);
    return field;
  });
}

/**
 * By option that cannot be used now: what brings what it lacks.
 * @param {Record<string, {available: boolean, command: string, size: number}>} availability
 */
function readUnavailable(availability) {
  const missing = Object.entries(availability).filter(([, { available }]) => !available);
  return Object.fromEntries(missing.map(([option, { command, size }]) => [option, { command, size }]));
}

/**
 * The plainest form of a property: references followed, and of alternatives the one that a form can offer.
 * @param {Schema} property
 * @param {Record<string, Schema>} definitions
 * @returns {Schema}
 */
function resolve(property, definitions) {
  if (property.$ref) return resolve(definitions[property.$ref.split("/").at(-1)], definitions);
  /** @type {Schema[]} */
  const alternatives = property.anyOf ?? property.oneOf ?? property.allOf ?? [];
  const choices = alternatives.map((each) => resolve(each, definitions)).filter((each) => each.type !== "null");
  const choice = choices.find((each) => each.enum) ?? choices[0] ?? {};
  const merged = { ...choice, ...property };
  if (merged.const !== undefined) merged.enum = [merged.const];
  return merged;
}

/** @param {Field} field */
function empty(field) {
  if (field.options) return field.options[0];
  if (field.type === "number" || field.type === "integer") return field.minimum ?? 0;
  return /** @type {Record<string, unknown>} */ ({ array: [], boolean: false, object: {} })[field.type] ?? "";
}
