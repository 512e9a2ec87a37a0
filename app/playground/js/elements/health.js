/** Whether a picture can be made now, and what to do where it cannot; asked of /readyz. */

import { button, copyButton, h, iconButton, prose } from "../dom.js";

/** @import {Api} from "../api.js" */

/** @typedef {{state: "ready" | "asleep" | "starting" | "down" | "gone", reasons: string[], note?: string, model?: string, device?: string}} State */

const WELL_MS = 15_000;
const ILL_MS = 2_500;
/** A server that has not answered by then is as good as away. */
const PATIENCE_MS = 6_000;
const DEMO_SEEN = "zturbo.demo-seen";
/** How `zturbo` is started on the server's machine. */
const ZTURBO = document.body.dataset.zturbo;
const WORDS = { ready: "Ready", asleep: "Asleep", starting: "Starting", down: "Not ready", gone: "No answer" };

/**
 * @param {Api} api
 * @returns {Promise<State>}
 */
async function ask(api) {
  let answer;
  try {
    answer = await (window.zturbo.early.readyz ??
      fetch(api.url("readyz"), { signal: AbortSignal.timeout(PATIENCE_MS) }));
  } catch {
    return { state: "gone", reasons: [`The server does not answer. \`${ZTURBO} serve\` starts it.`] };
  } finally {
    delete window.zturbo.early.readyz;
  }
  /** @type {{ready?: boolean, reasons?: string[], note?: string, workers?: {kind: string, model?: string, device?: string}[]}} */
  const body = await answer.json().catch(() => ({ reasons: ["The server does not say how it is."] }));
  const { ready, reasons = [], note = "", workers = [] } = body;
  const gpu = workers.find((worker) => worker.kind === "gpu" && worker.model);
  const starting = reasons.length > 0 && reasons.every((reason) => /loading|starting/.test(reason));
  const state = note ? (/asleep/.test(note) ? "asleep" : "starting") : ready ? "ready" : starting ? "starting" : "down";
  return {
    state,
    reasons: starting ? reasons : reasons.map(withCommand),
    note,
    model: gpu?.model,
    device: gpu?.device,
  };
}

/**
 * Each reason names a command that mends it.
 * @param {string} reason
 */
const withCommand = (reason) => (reason.includes("`") ? reason : `${reason} \`${ZTURBO} doctor\` tells more.`);

/** The dot in the header. */
export class Health extends HTMLElement {
  wake = () => {};

  /**
   * Asks for ever; `onhealth` is called with each answer.
   * @param {Api} api
   * @param {(state: State) => void} onhealth
   */
  async watch(api, onhealth) {
    for (;;) {
      const health = await ask(api);
      this.show(health, api);
      onhealth(health);
      await new Promise((resolve) => {
        this.wake = () => resolve(undefined);
        setTimeout(resolve, ["ready", "asleep"].includes(health.state) ? WELL_MS : ILL_MS);
      });
    }
  }

  /** Asks at once: a call has just failed. */
  hurry() {
    this.wake();
  }

  /**
   * @param {State} health
   * @param {Api} api
   */
  show({ state, note, model, device }, api) {
    this.dataset.state = state;
    const forget = iconButton("key", "Forget the key", () => {
      api.key = "";
      location.reload();
    });
    this.replaceChildren(
      h("span", { class: "dot", "aria-hidden": "true" }),
      h("span", {}, WORDS[state]),
      h("span", { class: "note" }, note || [model, device].filter(Boolean).join(" · ")),
      api.key ? forget : "",
    );
  }
}

/** Under the header: what is wrong, or that the model is only the demo. */
export class Banner extends HTMLElement {
  key = "";

  /** @param {State} health */
  show({ state, reasons, model }) {
    const key = JSON.stringify([state, reasons, model]);
    if (key === this.key) return;
    this.key = key;
    this.dataset.state = state;
    const demo = state === "ready" && model?.startsWith("demo") && !sessionStorage.getItem(DEMO_SEEN);
    this.replaceChildren(...(demo ? [this.demoLine()] : reasons.map((reason) => this.line(reason))));
  }

  /** @param {string} reason */
  line(reason) {
    const command = reason.match(/`([^`]+)`/)?.[1];
    const copy = command && copyButton(() => command, "Copy command");
    return h("div", { class: "banner", role: "alert" }, h("p", {}, ...prose(reason)), copy);
  }

  demoLine() {
    const text =
      "This is the small demo model: it draws balls, boxes, stars and the like, such as “a red ball on grass”. " +
      `\`${ZTURBO} pull\` fetches the real one.`;
    const close = () => {
      sessionStorage.setItem(DEMO_SEEN, "yes");
      this.replaceChildren();
    };
    return h("div", { class: "banner demo" }, h("p", {}, ...prose(text)), button(null, "Got it", close));
  }
}

customElements.define("zt-health", Health);
customElements.define("zt-banner", Banner);
