/** From the JSON schema of a model's input to the list of its fields. */

/**
 * `{name, title, description, type, options?, minimum?, maximum?, maxItems?, fields?, required, initial, example?}`
 * of each property. `options`: the values of an enum. `fields`: those of an array's items.
 */
export function readFields(schema, definitions = schema.$defs ?? {}) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const facts = resolve(property, definitions);
    const items = facts.items ? resolve(facts.items, definitions) : null;
    const field = {
      name,
      title: property.title ?? facts.title ?? name,
      description: property.description ?? facts.description ?? "",
      type: facts.type ?? "any",
      options: facts.enum,
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

/** The plainest form of a property: references followed, and of alternatives the one that a form can offer. */
function resolve(property, definitions) {
  if (property.$ref) return resolve(definitions[property.$ref.split("/").at(-1)], definitions);
  const choices = (property.anyOf ?? property.oneOf ?? property.allOf ?? [])
    .map((choice) => resolve(choice, definitions))
    .filter((choice) => choice.type !== "null");
  const choice = choices.find((each) => each.enum) ?? choices[0] ?? {};
  const merged = { ...choice, ...property };
  if (merged.const !== undefined) merged.enum = [merged.const];
  return merged;
}

function empty(field) {
  if (field.options) return field.options[0];
  if (field.type === "number" || field.type === "integer") return field.minimum ?? 0;
  return { array: [], boolean: false, object: {} }[field.type] ?? "";
}
