/** Whether a picture can be made now, and what to do where it cannot; asked of /readyz. */

import { copyButton, h, icon, prose } from "../dom.js";

const WELL_MS = 15_000;
const ILL_MS = 2_500;
const DEMO_SEEN = "zturbo.demo-seen";

/** `{state: "ready" | "starting" | "down" | "gone", reasons, model, device, demo}`. */
async function ask(api) {
  let answer;
  try {
    answer = await fetch(api.url("readyz"));
  } catch {
    return { state: "gone", reasons: ["The server does not answer. `zturbo serve` starts it."] };
  }
  const { ready, reasons = [], workers = [] } = await answer.json().catch(() => ({ reasons: ["The server does not say how it is. `zturbo doctor` tells more."] }));
  const gpu = workers.find((worker) => worker.kind === "gpu" && worker.model);
  const starting = reasons.length > 0 && reasons.every((reason) => /loading|starting/.test(reason));
  const state = ready ? "ready" : starting ? "starting" : "down";
  return { state, reasons: starting ? reasons : reasons.map(withCommand), model: gpu?.model, device: gpu?.device };
}

/** Each reason names a command that mends it. */
function withCommand(reason) {
  return reason.includes("`") ? reason : `${reason} \`zturbo doctor\` tells more.`;
}

const WORDS = { ready: "Ready", starting: "Starting", down: "Not ready", gone: "No answer" };

/** The dot in the header. */
export class Health extends HTMLElement {
  /** Asks for ever; `onhealth(health)` is called with each answer. */
  async watch(api, onhealth) {
    for (;;) {
      const health = await ask(api);
      this.show(health, api);
      onhealth(health);
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, health.state === "ready" ? WELL_MS : ILL_MS);
      });
    }
  }

  /** Asks at once: a call has just failed. */
  hurry() {
    this.wake?.();
  }

  show({ state, model, device }, api) {
    this.dataset.state = state;
    const about = [model, device].filter(Boolean).join(" · ");
    const forget = h("button", { type: "button", class: "quiet square", title: "Forget the key", "aria-label": "Forget the key", onclick: () => forgetKey(api) }, icon("key"));
    this.replaceChildren(h("span", { class: "dot", "aria-hidden": "true" }), h("span", {}, WORDS[state]), h("span", { class: "note" }, about), api.key ? forget : "");
  }
}

function forgetKey(api) {
  api.key = "";
  location.reload();
}

/** Under the header: what is wrong, or that the model is only the demo. */
export class Banner extends HTMLElement {
  show({ state, reasons, model }) {
    const key = JSON.stringify([state, reasons, model]);
    if (key === this.key) return;
    this.key = key;
    this.dataset.state = state;
    if (state !== "ready") this.replaceChildren(...reasons.map((reason) => this.line(reason)));
    else if (model?.startsWith("demo") && !sessionStorage.getItem(DEMO_SEEN)) this.replaceChildren(this.demoLine());
    else this.replaceChildren();
  }

  line(reason) {
    const command = reason.match(/`([^`]+)`/)?.[1];
    return h("div", { class: "banner", role: "alert" }, h("p", {}, ...prose(reason)), command ? copyButton(() => command, "Copy command") : "");
  }

  demoLine() {
    const text = "This is the small demo model: it knows balls, boxes, stars and the like, such as “a red ball on grass”, and draws small pictures. `zturbo pull` fetches the real one.";
    const close = () => {
      sessionStorage.setItem(DEMO_SEEN, "yes");
      this.replaceChildren();
    };
    return h("div", { class: "banner demo" }, h("p", {}, ...prose(text)), h("button", { type: "button", class: "quiet", onclick: close }, "Understood"));
  }
}

customElements.define("zt-health", Health);
customElements.define("zt-banner", Banner);
