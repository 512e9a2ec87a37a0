/** What a finished request tells about its picture. */

import { copyButton, h, iconButton } from "../dom.js";
import { stringify } from "../json.js";

/** @import {Picture, Result, Shown} from "../types" */

const ORDER = [
  "prepare",
  "loras",
  "encode",
  "image",
  "preprocess",
  "control",
  "denoise",
  "decode",
  "generate",
  "finish",
];

export class About extends HTMLElement {
  /** @type {(seed: number | bigint) => void} */
  onLockSeed;

  /**
   * @param {Shown | null} shown
   * @param {Picture} [picture] the one of several that is looked at
   */
  show(shown, picture) {
    this.hidden = !shown;
    this.replaceChildren(...(shown ? [this.facts(shown, picture), raw(shown.result)] : []));
  }

  /**
   * @param {Shown} shown
   * @param {Picture} [picture]
   */
  facts({ result, input }, picture) {
    const seed = picture?.seed ?? result.seed;
    const seeds = !picture && result.seeds ? result.seeds.join(", ") : String(seed);
    /** @type {[string, (Node | string)[] | null | undefined | false | ""][]} */
    const rows = [
      ["Seed", seed !== undefined && [h("span", { class: "figure" }, seeds), this.lock(seed)]],
      ["Prompt", input?.prompt && !result.expanded_prompt && [input.prompt]],
      ["Expanded prompt", result.expanded_prompt && [result.expanded_prompt]],
      ["Time", result.timings && timings(result.timings)],
      ["LoRAs", result.loras?.length ? result.loras.map(loraLine) : null],
      ["Seed variance", input?.seed_variance && [String(input.seed_variance)]],
      ["Strength", result.strength !== undefined && [String(result.strength)]],
      ["ControlNet", result.controlnet && [result.controlnet]],
      ["Model", result.model && [result.model]],
      ["Kept until", result.expires_at && [day(result.expires_at)]],
      ["Notes", result.warnings?.length ? result.warnings.map((text) => h("span", { class: "warning" }, text)) : null],
    ];
    const list = h("dl", { class: "facts" });
    for (const [name, value] of rows) if (value) list.append(h("div", {}, h("dt", {}, name), h("dd", {}, ...value)));
    return list;
  }

  /** @param {number | bigint} seed */
  lock(seed) {
    return iconButton("locked", "Use this seed again", () => this.onLockSeed(seed));
  }
}

/**
 * Stages, in the order in which they happen, as parts of a line as long as the whole took.
 * @param {Record<string, number>} seconds
 */
function timings(seconds) {
  const parts = Object.entries(seconds).filter(([, each]) => each >= 0.0005);
  const place = (/** @type {string} */ name) => ORDER.indexOf(name) + 1 || Infinity;
  parts.sort(([one], [other]) => place(one) - place(other));
  const total = parts.reduce((sum, [, each]) => sum + each, 0);
  const line = h("span", { class: "stages", "aria-hidden": "true" });
  for (const [, each] of parts) {
    const part = h("span", {});
    // Of all, since growth that sums up to less than 1 does not fill the line.
    part.style.flexGrow = String(each / total);
    line.append(part);
  }
  const words = parts.map(([name, each]) => `${name.replaceAll("_", " ")} ${duration(each)}`).join(" · ");
  return [h("span", { class: "figure" }, duration(total)), line, h("span", { class: "note" }, words)];
}

/** @param {number} seconds */
function duration(seconds) {
  return seconds < 0.0995 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

/** @param {string} timestamp */
function day(timestamp) {
  return new Date(timestamp).toLocaleDateString(undefined, { weekday: "long", month: "long", day: "numeric" });
}

/** @param {NonNullable<Result["loras"]>[number]} report */
function loraLine({ path, name, scale, matched, unmatched }) {
  const text = `${path ?? name} × ${scale}: ${matched} of ${matched + unmatched} keys matched`;
  return h("span", { class: unmatched ? "line warning" : "line" }, text);
}

/** @param {Result} result */
function raw(result) {
  const text = stringify(result, 2);
  return h(
    "details",
    { class: "raw" },
    h("summary", {}, "Raw JSON"),
    copyButton(() => text),
    h("pre", { class: "code", tabIndex: 0, "aria-label": "Result as JSON" }, h("code", {}, text)),
  );
}

customElements.define("zt-about", About);
