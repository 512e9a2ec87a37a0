/** Light, dark, or as the system has it; kept in this browser. */

import { icon, iconButton } from "../dom.js";

/** @import {IconName} from "../dom.js" */

const SAVED = "zturbo.theme";

/** @type {{name: "" | "light" | "dark", icon: IconName, words: string}[]} */
const THEMES = [
  { name: "", icon: "system", words: "Theme: as the system" },
  { name: "light", icon: "light", words: "Theme: light" },
  { name: "dark", icon: "dark", words: "Theme: dark" },
];

export class ThemeSwitch extends HTMLElement {
  connectedCallback() {
    const toggle = iconButton("system", "Theme", () => show(THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length]));
    this.replaceChildren(toggle);
    const show = (/** @type {typeof THEMES[number]} */ theme) => {
      if (theme.name) localStorage.setItem(SAVED, theme.name);
      else localStorage.removeItem(SAVED);
      // boot.js sets the same before the first picture of the page.
      document.documentElement.dataset.theme = theme.name;
      toggle.replaceChildren(icon(theme.icon));
      toggle.title = theme.words;
      toggle.setAttribute("aria-label", theme.words);
    };
    show(current());
  }
}

function current() {
  const name = localStorage.getItem(SAVED) ?? "";
  return THEMES.find((theme) => theme.name === name) ?? THEMES[0];
}

customElements.define("zt-theme", ThemeSwitch);
