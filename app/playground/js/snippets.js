/** The request as code that runs as it stands: submit, wait, save the picture. */

/** `{curl, Python, JavaScript}`. The key itself is never shown: `withKey` says whether one is needed. */
export function snippets({ base, modelId, values, withKey }) {
  const url = `${base}v1/models/${modelId}`;
  const extension = { jpeg: "jpg" }[values.output_format] ?? values.output_format ?? "png";
  const facts = { url, values, extension, many: (values.num_images ?? 1) > 1, withKey };
  return { curl: curl(facts), Python: python(facts), JavaScript: javascript(facts) };
}

function curl({ url, values, extension, many, withKey }) {
  const key = withKey ? ' -H "Authorization: Bearer $ZTURBO_TOKEN"' : "";
  const save = many
    ? `n=0; for url in $(echo "$result" | sed 's/.*"images":\\[\\([^]]*\\)\\].*/\\1/' | tr ',"' '  '); do n=$((n + 1)); curl -sS -o picture-$n.${extension} "$url"; done`
    : `curl -sS -o picture.${extension} "$(echo "$result" | sed 's/.*"image":"\\([^"]*\\)".*/\\1/')"`;
  return `result_url=$(curl -sS '${url}'${key} \\
  -H 'Content-Type: application/json' --data-binary @- <<'JSON' | sed 's/.*"result_url":"\\([^"]*\\)".*/\\1/'
${JSON.stringify(values, null, 2)}
JSON
)
until result=$(curl -sS${key} "$result_url") && ! echo "$result" | grep -q '"status":"in_'; do sleep 1; done
echo "$result"
${save}
`;
}

function python({ url, values, extension, many, withKey }) {
  const key = withKey ? '\nhttp.headers["Authorization"] = f"Bearer {os.environ[\'ZTURBO_TOKEN\']}"' : "";
  const save = many
    ? `for number, url in enumerate(result["output"]["images"], 1):\n    Path(f"picture-{number}.${extension}").write_bytes(http.get(url).content)`
    : `Path("picture.${extension}").write_bytes(http.get(result["output"]["image"]).content)`;
  return `${withKey ? "import os\n" : ""}import time
from pathlib import Path

import httpx

http = httpx.Client(timeout=60)${key}
request = http.post(
    ${JSON.stringify(url)},
    json=${indented(pythonValue(values), 4)},
).raise_for_status().json()
while (result := http.get(request["result_url"]).json())["status"].startswith("in_"):
    time.sleep(1)
print(result["status"], result.get("error", ""))
${save}
`;
}

function javascript({ url, values, extension, many, withKey }) {
  const key = withKey ? ", Authorization: `Bearer ${process.env.ZTURBO_TOKEN}`" : "";
  const save = many
    ? `for (const [index, url] of result.output.images.entries()) {\n  const picture = await fetch(url);\n  await writeFile(\`picture-\${index + 1}.${extension}\`, Buffer.from(await picture.arrayBuffer()));\n}`
    : `const picture = await fetch(result.output.image);\nawait writeFile("picture.${extension}", Buffer.from(await picture.arrayBuffer()));`;
  return `import { writeFile } from "node:fs/promises";

const headers = { "Content-Type": "application/json"${key} };
const input = ${JSON.stringify(values, null, 2)};
const submitted = await fetch(${JSON.stringify(url)}, { method: "POST", headers, body: JSON.stringify(input) });
if (!submitted.ok) throw new Error(await submitted.text());
const { result_url } = await submitted.json();
let result;
do {
  await new Promise((resolve) => setTimeout(resolve, 1000));
  result = await (await fetch(result_url, { headers })).json();
} while (result.status.startsWith("in_"));
console.log(result.status, result.error ?? "");
${save}
`;
}

/** A JSON value as Python writes it. */
function pythonValue(value, indent = "") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const array = Array.isArray(value);
  const inner = `${indent}    `;
  const parts = array
    ? value.map((each) => inner + pythonValue(each, inner))
    : Object.entries(value).map(([name, each]) => `${inner}${JSON.stringify(name)}: ${pythonValue(each, inner)}`);
  const [open, close] = array ? "[]" : "{}";
  return parts.length ? `${open}\n${parts.join(",\n")},\n${indent}${close}` : open + close;
}

const indented = (text, spaces) => text.replaceAll("\n", `\n${" ".repeat(spaces)}`);
