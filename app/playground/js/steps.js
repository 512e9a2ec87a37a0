/** Which denoising steps are done, and which of them the image guides. */

/**
 * How many of so many steps are done where a picture starts from an image, by the server's rule; all at strength 1.
 * @param {number} steps
 * @param {number} [strength]
 */
export function stepsDone(steps, strength = 1) {
  return steps - Math.trunc(Math.max(steps - Math.min(steps * strength, steps), 0));
}

/**
 * Step i of n is guided unless i/n < control_start or (i+1)/n > control_end, the rule that the server follows.
 * An array of n booleans.
 * @param {number} steps
 * @param {number} start
 * @param {number} end
 */
export function guidedSteps(steps, start, end) {
  return Array.from({ length: steps }, (_, i) => start < end && i / steps >= start && (i + 1) / steps <= end);
}

/**
 * "Steps 1–3 of 8", for people.
 * @param {boolean[]} guided
 */
export function describeSteps(guided) {
  const first = guided.indexOf(true);
  if (first < 0) return "No step is guided";
  const last = guided.lastIndexOf(true);
  const which = first === last ? `Step ${first + 1}` : `Steps ${first + 1}–${last + 1}`;
  return `${which} of ${guided.length} ${first === last ? "is" : "are"} guided`;
}
