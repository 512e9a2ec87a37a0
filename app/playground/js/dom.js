/** Making elements: `h("p", {class: "note", onclick}, "text", child)`, and icons. */

const SVG = "http://www.w3.org/2000/svg";
/** For which a button says that it has done what it does. */
const CONFIRMED_MS = 1500;

/** Strokes on a 24 by 24 grid. */
const STROKES = {
  check: "M5 12.5 10 17 19 7",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  dark: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z",
  dice: "M4 4h16v16H4zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  download: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  help: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM9.6 9.2a2.5 2.5 0 1 1 3.4 2.6c-.7.3-1 .8-1 1.6M12 16.6h.01",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01",
  key: "M14 10a4 4 0 1 0-3.5 4M13.5 12.5 20 19m-3-3 2-2",
  left: "M15 5l-7 7 7 7",
  light:
    "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 3v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4",
  locked: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  next: "M5 5l8 7-8 7zM17 5v14",
  open: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 6.8-1.2",
  plus: "M12 5v14M5 12h14",
  restore: "M4 12a8 8 0 1 0 2.6-5.9M4 4v4h4",
  reuse: "M4 8h11a4 4 0 0 1 0 8H9m0 0 3-3m-3 3 3 3M4 8l3-3M4 8l3 3",
  right: "M9 5l7 7-7 7",
  stop: "M7 7h10v10H7z",
  system: "M4 5h16v11H4zM9 20h6m-3-4v4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  wand: "M5 19 15 9m2-2 1-1M17 3v3m0 3v2m4-5h-2m-3 0h-2",
  zoom: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5 20 20M10.5 8v5M8 10.5h5",
};

/** @typedef {keyof typeof STROKES} IconName */

/**
 * A new element. `on…` properties become listeners, known properties are set as such, the rest are attributes;
 * null and false leave an attribute out.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [properties]
 * @param {(Node | string | null | undefined | false)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.includes("-") && name !== "list") Object.assign(element, { [name]: value });
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => typeof child === "string" || child instanceof Node));
  return element;
}

/** @param {IconName} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", STROKES[name]);
  svg.append(path);
  return svg;
}

/**
 * A button with words and perhaps an icon before them.
 * @param {IconName | null} name
 * @param {string} words
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, any>} properties
 */
export function button(name, words, onclick, properties = {}) {
  return h("button", { type: "button", class: "quiet", onclick, ...properties }, name && icon(name), words);
}

/**
 * A button that is only an icon; `label` is what it is called.
 * @param {IconName} name
 * @param {string} label
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, any>} properties
 */
export function iconButton(name, label, onclick, properties = {}) {
  const own = { type: "button", class: "quiet square", title: label, "aria-label": label, onclick };
  return h("button", { ...own, ...properties }, icon(name));
}

/**
 * Copies what `text()` gives, and says so for a moment.
 * @param {() => string} text
 */
export function copyButton(text, label = "Copy") {
  const word = h("span", {}, label);
  return h("button", { type: "button", class: "quiet", onclick: copyNow }, icon("copy"), word);

  async function copyNow() {
    await copy(text());
    confirm(word, "Copied", label);
  }
}

/**
 * The same where there is no room for words; `name` says what is copied.
 * @param {() => string} text
 * @param {string} name
 */
export function copyIcon(text, name) {
  const button = iconButton("copy", name, async () => {
    await copy(text());
    announce("Copied");
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), CONFIRMED_MS);
  });
  return button;
}

/**
 * Says a word in the place of another for a moment.
 * @param {HTMLElement} element
 * @param {string} word
 * @param {string} before
 */
export function confirm(element, word, before) {
  element.textContent = word;
  announce(word);
  setTimeout(() => {
    element.textContent = before;
  }, CONFIRMED_MS);
}

/** @param {string} text */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain HTTP from another machine there is no clipboard but this one.
  const area = h("textarea", { value: text, class: "hidden-visually" });
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
}

/**
 * Text with `code` between backticks.
 * @param {string} text
 */
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

/**
 * Tells a screen reader.
 * @param {string} text
 */
export function announce(text) {
  const announcer = document.getElementById("announcer");
  if (announcer) announcer.textContent = text;
}

/**
 * Throws away an element's click until a second one confirms it, before anything else is pressed.
 * @param {HTMLButtonElement} element
 * @param {string} question
 * @param {() => void} action
 */
export function confirmed(element, question, action) {
  const before = [...element.childNodes];
  /** @param {Event} event */
  const elsewhere = ({ target }) => {
    if (!element.contains(/** @type {Node} */ (target))) arm(false);
  };
  /** @param {boolean} armed */
  function arm(armed) {
    element.classList.toggle("armed", armed);
    element.replaceChildren(...(armed ? [question] : before));
    // Focus alone would not do: some browsers give none to a button that is clicked.
    for (const event of ["pointerdown", "focusin"]) {
      if (armed) addEventListener(event, elsewhere);
      else removeEventListener(event, elsewhere);
    }
  }
  element.addEventListener("click", () => {
    const sure = element.classList.contains("armed");
    arm(!sure);
    if (sure) action();
    else announce(`${question} Press again to confirm.`);
  });
  return element;
}

/** A picture that is much smaller than its place is shown in whole pixels of it, never as a blur. */
const LEAST_SIDE = 256;
/** Times by which it is enlarged at most. */
export const MOST_TIMES = 3;

/**
 * @param {string} src
 * @param {string} alt
 * @param {Record<string, any>} properties
 */
export function pictureImage(src, alt, properties = {}) {
  const image = h("img", { src, alt, decoding: "async", ...properties });
  image.addEventListener("load", () => {
    image.classList.toggle("tiny", Math.min(image.naturalWidth, image.naturalHeight) < LEAST_SIDE);
  });
  return image;
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
