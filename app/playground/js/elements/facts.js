/** What a finished request tells about its picture. */

import { copyButton, h, iconButton } from "../dom.js";

/** Elements for a result body. `input`: the request's, or null; `actions`: {lockSeed}. */
export function facts(result, input, { lockSeed }) {
  const rows = [
    ["Seed", result.seed === undefined ? null : [h("span", { class: "figure" }, String(result.seed)), iconButton("locked", "Use this seed again", () => lockSeed(result.seed))]],
    ["Prompt", input?.prompt && !result.expanded_prompt ? [input.prompt] : null],
    ["Expanded prompt", result.expanded_prompt ? [result.expanded_prompt] : null],
    ["Time", timings(result.timings)],
    ["LoRAs", result.loras?.length ? result.loras.map(loraLine) : null],
    ["ControlNet", result.controlnet ? [result.controlnet] : null],
    ["Model", result.model ? [result.model] : null],
    ["Kept until", result.expires_at ? [day(result.expires_at)] : null],
    ["Notes", result.warnings?.length ? result.warnings.map((text) => h("span", { class: "warning" }, text)) : null],
  ];
  const list = h("dl", { class: "facts" });
  for (const [name, value] of rows) if (value) list.append(h("div", {}, h("dt", {}, name), h("dd", {}, ...value)));
  return [list, raw(result)];
}

const ORDER = ["prepare", "encode", "preprocess", "control", "denoise", "decode", "generate", "finish"];

/** Stages, in the order in which they happen, as parts of a line as long as the whole took. */
function timings(seconds) {
  if (!seconds) return null;
  const parts = Object.entries(seconds).filter(([, each]) => each >= 0.0005);
  const place = (name) => (ORDER.indexOf(name) + 1 || Infinity);
  parts.sort(([one], [other]) => place(one) - place(other));
  const total = parts.reduce((sum, [, each]) => sum + each, 0);
  const line = h("span", { class: "stages", "aria-hidden": "true" });
  for (const [, each] of parts) {
    const part = h("span", {});
    // Of all, since growth that sums up to less than 1 does not fill the line.
    part.style.flexGrow = each / total;
    line.append(part);
  }
  const words = parts.map(([name, each]) => `${name.replaceAll("_", " ")} ${duration(each)}`).join(" · ");
  return [h("span", { class: "figure" }, duration(total)), line, h("span", { class: "note" }, words)];
}

function duration(seconds) {
  return seconds < 0.0995 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

function day(timestamp) {
  return new Date(timestamp).toLocaleDateString(undefined, { weekday: "long", month: "long", day: "numeric" });
}

function loraLine({ path, name, scale, matched, unmatched }) {
  const all = matched + unmatched;
  const text = `${path ?? name} × ${scale}: ${matched} of ${all} keys matched`;
  return h("span", { class: unmatched ? "line warning" : "line" }, text);
}

function raw(result) {
  const text = JSON.stringify(result, null, 2);
  return h(
    "details",
    { class: "raw" },
    h("summary", {}, "Raw JSON"),
    copyButton(() => text),
    h("pre", { class: "code", tabIndex: 0, "aria-label": "Result as JSON" }, h("code", {}, text)),
  );
}
