/** Making elements: `h("p", {class: "note", onclick}, "text", child)`, and icons. */

const SVG = "http://www.w3.org/2000/svg";

/** Strokes on a 24 by 24 grid. */
const STROKES = {
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  dice: "M4 4h16v16H4zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  download: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  help: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM9.6 9.2a2.5 2.5 0 1 1 3.4 2.6c-.7.3-1 .8-1 1.6M12 16.6h.01",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01",
  key: "M14 10a4 4 0 1 0-3.5 4M13.5 12.5 20 19m-3-3 2-2",
  locked: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  open: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 6.8-1.2",
  plus: "M12 5v14M5 12h14",
  restore: "M4 12a8 8 0 1 0 2.6-5.9M4 4v4h4",
  reuse: "M4 8h11a4 4 0 0 1 0 8H9m0 0 3-3m-3 3 3 3M4 8l3-3M4 8l3 3",
  spark: "M12 3l1.9 5.6L19.5 10.5l-5.6 1.9L12 18l-1.9-5.6L4.5 10.5l5.6-1.9zM19 16v4M17 18h4",
  stop: "M7 7h10v10H7z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  wand: "M5 19 15 9m2-2 1-1M17 3v3m0 3v2m4-5h-2m-3 0h-2",
};

/**
 * A new element. `on…` properties become listeners, known properties are set as such, the rest are attributes;
 * null and false leave an attribute out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.includes("-") && name !== "list") element[name] = value;
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

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

/** A button that is only an icon; `label` is what it is called. */
export function iconButton(name, label, onclick, properties = {}) {
  return h("button", { type: "button", class: "quiet square", title: label, "aria-label": label, onclick, ...properties }, icon(name));
}

/** Copies what `text()` gives, and says so for a moment. */
export function copyButton(text, label = "Copy") {
  const word = h("span", {}, label);
  const button = h("button", { type: "button", class: "quiet" }, icon("copy"), word);
  button.addEventListener("click", async () => {
    await copy(text());
    word.textContent = "Copied";
    announce("Copied");
    setTimeout(() => (word.textContent = label), 1500);
  });
  return button;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain HTTP from another machine there is no clipboard but this one.
  const area = h("textarea", { value: text, class: "hidden-visually" });
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  focused.focus();
  return undefined;
}

/** Text with `code` between backticks. */
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

/** Tells a screen reader. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** Throws away an element's click until a second one within three seconds confirms it. */
export function confirmed(button, question, action) {
  const before = [...button.childNodes];
  let timer = 0;
  const disarm = () => {
    clearTimeout(timer);
    timer = 0;
    button.classList.remove("armed");
    button.replaceChildren(...before);
  };
  button.addEventListener("click", () => {
    if (timer) {
      disarm();
      action();
      return;
    }
    button.classList.add("armed");
    button.replaceChildren(question);
    announce(`${question} Press again to confirm.`);
    timer = setTimeout(disarm, 3000);
  });
  return button;
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
