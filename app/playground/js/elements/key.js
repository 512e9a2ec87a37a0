/** Asks for the server's key, when it needs one. */

import { h, prose } from "../dom.js";

export class KeyDialog extends HTMLElement {
  input = h("input", {
    type: "password",
    id: "key",
    required: true,
    autocomplete: "current-password",
    "aria-describedby": "key-about",
  });
  about = h("p", { id: "key-about", role: "status" });
  dialog = h("dialog", { "aria-labelledby": "key-title" });

  connectedCallback() {
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "key-title" }, "This server needs a key"),
      this.about,
      h("label", { class: "name", htmlFor: "key" }, "Key"),
      this.input,
      h("p", { class: "note" }, ...prose("A key of `ZTURBO_API_KEYS` or its key file. It stays in this tab.")),
      h("button", { class: "primary", type: "submit" }, "Continue"),
    );
    this.dialog.replaceChildren(form);
    // Nothing works without a key: Escape would leave a dead page.
    this.dialog.addEventListener("cancel", (event) => event.preventDefault());
    this.replaceChildren(this.dialog);
  }

  /**
   * What was typed.
   * @param {boolean} wasWrong
   * @returns {Promise<string>}
   */
  ask(wasWrong) {
    this.about.textContent = wasWrong ? "That key was not accepted." : "";
    this.about.className = wasWrong ? "fault" : "";
    this.input.value = "";
    this.dialog.showModal();
    return new Promise((resolve) => {
      this.dialog.addEventListener("close", () => resolve(this.input.value), { once: true });
    });
  }
}

customElements.define("zt-key", KeyDialog);
