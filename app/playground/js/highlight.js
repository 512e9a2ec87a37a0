/** Colours for the parts of a snippet: texts, numbers and words that belong to the language. */

import { h } from "./dom.js";

const PARTS = [
  ["text", /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/],
  [
    "word",
    /\b(?:import|from|const|let|for|of|in|if|not|while|await|throw|new|print|raise|None|True|False|null|true|false|curl)\b/,
  ],
  ["number", /\b\d+(?:\.\d+)?\b/],
  ["option", /(?<=\s)--?[A-Za-z][\w-]*/],
];

const ANY = new RegExp(PARTS.map(([, pattern]) => `(${/** @type {RegExp} */ (pattern).source})`).join("|"), "g");

/** @param {string} code */
export function highlighted(code) {
  const nodes = [];
  let at = 0;
  for (const found of code.matchAll(ANY)) {
    const kind = PARTS[found.slice(1).findIndex((each) => each !== undefined)][0];
    nodes.push(code.slice(at, found.index), h("span", { class: `code-${kind}` }, found[0]));
    at = found.index + found[0].length;
  }
  return [...nodes, code.slice(at)];
}
