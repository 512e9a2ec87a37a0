/** JSON whose integers stay exact: a seed may lie beyond 2**53, where a number of JavaScript is rounded. */

const INTEGER = /^-?\d+$/;

/**
 * The value of a JSON text; integers that a number cannot hold are bigints. Throws SyntaxError.
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  /** @type {(this: unknown, key: string, value: unknown, context?: {source?: string}) => unknown} */
  const exact = (_, value, context) => {
    // A browser that gives no `context` rounds, as every page does there.
    const source = context?.source ?? "";
    const rounded = typeof value === "number" && !Number.isSafeInteger(value) && INTEGER.test(source);
    return rounded ? BigInt(source) : value;
  };
  return JSON.parse(text, /** @type {(key: string, value: unknown) => unknown} */ (exact));
}

/**
 * The JSON text of a value that may hold bigints.
 * @param {unknown} value
 * @param {number} [indent]
 */
export function stringify(value, indent) {
  // rawJSON came with `context`: where one is missing there is no bigint.
  const raw = /** @type {{rawJSON?: (text: string) => unknown}} */ (/** @type {unknown} */ (JSON)).rawJSON;
  const exact = (/** @type {unknown} */ each) => (raw ? raw(String(each)) : Number(each));
  return JSON.stringify(value, (_, each) => (typeof each === "bigint" ? exact(each) : each), indent);
}

/**
 * An integer as the page holds it, of its digits.
 * @param {string | bigint} digits
 */
export function integer(digits) {
  const exact = BigInt(digits);
  return Number.isSafeInteger(Number(exact)) ? Number(exact) : exact;
}
