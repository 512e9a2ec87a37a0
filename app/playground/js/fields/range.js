/** A slider with its number beside it; both take the value. */

import { h } from "../dom.js";

const NOTCHES = 100;

/** `{element, slider, number, show(value)}`; `onchange(value)` is called with numbers in range only. */
export function range({ id, label, minimum, maximum, integer, onchange }) {
  const step = integer ? 1 : niceStep((maximum - minimum) / NOTCHES);
  const bounds = { min: minimum, max: maximum, step };
  const slider = h("input", { type: "range", ...bounds, "aria-label": `${label}, slider` });
  const number = h("input", { type: "number", class: "number", id, ...bounds, step: integer ? 1 : "any", inputMode: "decimal" });
  if (!id) number.setAttribute("aria-label", label);
  const fill = (value) => slider.style.setProperty("--fill", (value - minimum) / (maximum - minimum));
  slider.addEventListener("input", () => onchange(slider.valueAsNumber));
  number.addEventListener("change", () => {
    const value = number.valueAsNumber;
    const fitting = Math.min(maximum, Math.max(minimum, Number.isNaN(value) ? slider.valueAsNumber : value));
    number.value = fitting;
    onchange(integer ? Math.round(fitting) : fitting);
  });
  const show = (value) => {
    if (slider.valueAsNumber !== value) slider.value = value;
    if (document.activeElement !== number || number.valueAsNumber !== value) number.value = value;
    fill(Number(value));
  };
  return { element: h("div", { class: "range" }, slider, number), slider, number, show };
}

/** The largest of 0.01, 0.05, 0.1, … that is not above a step. */
function niceStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return Number(((step / power >= 5 ? 5 : 1) * power).toPrecision(1));
}
