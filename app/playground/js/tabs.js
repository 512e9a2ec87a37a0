/** Tabs as the ARIA practices have them: arrow keys move, one tab is in the tab order. */

import { h } from "./dom.js";

/**
 * The list of tabs over their panels; `onshow(title)` is called after each change.
 * @param {string} id
 * @param {string} label
 * @param {Record<string, HTMLElement>} panels by title
 * @param {(title: string) => void} onshow
 */
export function tabs(id, label, panels, onshow = () => {}) {
  const titles = Object.keys(panels);
  const buttons = titles.map((title) => {
    const slug = `${id}-${title.toLowerCase()}`;
    Object.assign(panels[title], { id: `${slug}-panel` });
    panels[title].setAttribute("role", "tabpanel");
    panels[title].setAttribute("aria-labelledby", slug);
    return h(
      "button",
      { type: "button", role: "tab", id: slug, "aria-controls": `${slug}-panel`, onclick: () => show(title) },
      title,
    );
  });
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": label }, ...buttons);
  list.addEventListener("keydown", (event) => {
    const at = buttons.findIndex((each) => each.matches(":focus"));
    /** @type {Record<string, number>} */
    const places = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 };
    const to = places[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const index = (to + buttons.length) % buttons.length;
    show(titles[index]);
    buttons[index].focus();
  });

  /** @param {string} title */
  function show(title) {
    for (const [index, each] of titles.entries()) {
      const chosen = each === title;
      panels[each].hidden = !chosen;
      buttons[index].setAttribute("aria-selected", String(chosen));
      buttons[index].tabIndex = chosen ? 0 : -1;
    }
    onshow(title);
  }

  show(titles[0]);
  return list;
}
