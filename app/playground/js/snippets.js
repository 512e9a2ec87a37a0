/** The request as code that runs as it stands; what is as the server's defaults have it is left out. */

import { stringify } from "./json.js";

/** @import {Model, Values} from "./types" */

/** What one call waits for. A picture may take longer: then a program asks again. */
const WAIT_SECONDS = 60;

/**
 * By language. The key itself is never shown: `withKey` says whether one is needed.
 * @param {{base: string, model: Model, values: Values, withKey: boolean}} request
 * @returns {Record<string, string>}
 */
export function snippets({ base, model, values, withKey }) {
  const url = `${base}v1/models/${model.id}?wait=`;
  const { output_format: format = "png", num_images: count = 1 } = values;
  const facts = {
    url,
    values: told(model, values),
    extension: format === "jpeg" ? "jpg" : format,
    many: count > 1,
    withKey,
  };
  return { curl: curl(facts), Python: python(facts), JavaScript: javascript(facts) };
}

/** @typedef {{url: string, values: Values, extension: string, many: boolean, withKey: boolean}} Facts */

/**
 * The values that the server would not take of itself.
 * @param {Model} model
 * @param {Values} values
 */
function told(model, values) {
  const isTold = (/** @type {[string, unknown]} */ [name, value]) => {
    const field = model.fields.find((each) => each.name === name);
    return !field || field.required || stringify(field.initial) !== stringify(value);
  };
  return Object.fromEntries(Object.entries(values).filter(isTold));
}

/** @param {Facts} facts */
function curl({ url, values, withKey }) {
  const key = withKey ? ' -H "Authorization: Bearer $ZTURBO_TOKEN"' : "";
  // A quote would end the text that the shell passes on.
  const body = stringify(values).replaceAll("'", "\\u0027");
  return `curl -sS '${url}${WAIT_SECONDS}'${key} -H 'Content-Type: application/json' -d '${body}'\n`;
}

/** @param {Facts} facts */
function python({ url, values, extension, many, withKey }) {
  const key = withKey ? "\n    headers=headers," : "";
  const again = withKey ? "result_url, headers=headers" : "result_url";
  const save = many
    ? `for number, url in enumerate(result["output"]["images"], 1):\n    Path(f"picture-{number}.${extension}").write_bytes(httpx.get(url).content)`
    : `Path("picture.${extension}").write_bytes(httpx.get(result["output"]["image"]).content)`;
  return `${withKey ? "import os\n" : ""}import time
from pathlib import Path

import httpx

${withKey ? `headers = {"Authorization": "Bearer " + os.environ["ZTURBO_TOKEN"]}\n` : ""}answer = httpx.post(
    ${JSON.stringify(url + WAIT_SECONDS)},${key}
    json=${indented(pythonValue(values), 4)},
    timeout=${WAIT_SECONDS + 10},
)
result = answer.raise_for_status().json()
result_url = result["result_url"]
while result["status"] in ("in_queue", "in_progress"):
    time.sleep(2)
    result = httpx.get(${again}).raise_for_status().json()
if result["status"] != "succeeded":
    raise SystemExit(result)
print("succeeded, seed", result["seed"])
${save}
`;
}

/** @param {Facts} facts */
function javascript({ url, values, extension, many, withKey }) {
  const key = withKey ? ", Authorization: `Bearer ${process.env.ZTURBO_TOKEN}`" : "";
  const again = withKey ? "resultUrl, { headers }" : "resultUrl";
  const save = many
    ? `for (const [index, url] of result.output.images.entries()) {
  const picture = await fetch(url);
  await writeFile(\`picture-\${index + 1}.${extension}\`, Buffer.from(await picture.arrayBuffer()));
}`
    : `const picture = await fetch(result.output.image);
await writeFile("picture.${extension}", Buffer.from(await picture.arrayBuffer()));`;
  return `import { writeFile } from "node:fs/promises";

const headers = { "Content-Type": "application/json"${key} };
const answer = await fetch(${JSON.stringify(url + WAIT_SECONDS)}, {
  method: "POST",
  headers,
  body: JSON.stringify(${indented(stringify(values, 2), 2)}),
});
let result = await answer.json();
const resultUrl = result.result_url;
while (["in_queue", "in_progress"].includes(result.status)) {
  await new Promise((resolve) => setTimeout(resolve, 2000));
  result = await (await fetch(${again})).json();
}
if (result.status !== "succeeded") throw new Error(JSON.stringify(result));
console.log("succeeded, seed", result.seed);
${save}
`;
}

/**
 * A JSON value as Python writes it.
 * @param {unknown} value
 * @returns {string}
 */
function pythonValue(value, indent = "") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return stringify(value);
  const inner = `${indent}    `;
  const parts = Array.isArray(value)
    ? value.map((each) => inner + pythonValue(each, inner))
    : Object.entries(value).map(([name, each]) => `${inner}${JSON.stringify(name)}: ${pythonValue(each, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return parts.length ? `${open}\n${parts.join(",\n")},\n${indent}${close}` : open + close;
}

/**
 * @param {string} text
 * @param {number} spaces
 */
const indented = (text, spaces) => text.replaceAll("\n", `\n${" ".repeat(spaces)}`);
