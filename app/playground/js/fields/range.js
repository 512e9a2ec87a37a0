/** A slider with its number beside it; both take the value. */

import { h } from "../dom.js";

const NOTCHES = 100;

/**
 * Its parts, and `show(value)`; `onchange(value)` is called with numbers in range only.
 * @param {{id?: string, label: string, minimum: number, maximum: number, integer?: boolean}} facts
 * @param {(value: number) => void} onchange
 */
export function range({ id, label, minimum, maximum, integer }, onchange) {
  const step = integer ? 1 : niceStep((maximum - minimum) / NOTCHES);
  const bounds = { min: minimum, max: maximum, step };
  const slider = h("input", { type: "range", ...bounds, "aria-label": `${label}, slider` });
  const exact = { ...bounds, step: integer ? 1 : "any", inputMode: "decimal" };
  const number = h("input", { type: "number", class: "number", ...exact });
  if (id) number.id = id;
  else number.setAttribute("aria-label", label);
  slider.addEventListener("input", () => onchange(slider.valueAsNumber));
  number.addEventListener("change", () => {
    const value = Number.isNaN(number.valueAsNumber) ? slider.valueAsNumber : number.valueAsNumber;
    const fitting = Math.min(maximum, Math.max(minimum, value));
    number.value = String(fitting);
    onchange(integer ? Math.round(fitting) : fitting);
  });
  const show = (/** @type {any} */ value) => {
    if (slider.valueAsNumber !== value) slider.value = value;
    if (document.activeElement !== number || number.valueAsNumber !== value) number.value = value;
    slider.style.setProperty("--fill", String((Number(value) - minimum) / (maximum - minimum)));
  };
  return { element: h("div", { class: "range" }, slider, number), slider, number, show };
}

/**
 * The largest of 0.01, 0.05, 0.1, … that is not above a step.
 * @param {number} step
 */
function niceStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return Number(((step / power >= 5 ? 5 : 1) * power).toPrecision(1));
}
