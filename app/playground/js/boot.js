/** What no module may be needed for: the theme before anything is drawn, the first calls, and word of a lost part. */

(() => {
  const RELOADS = "zturbo.reloads";
  const FIRST_WAIT_SECONDS = 3;
  const LONGEST_WAIT_SECONDS = 60;
  const SLOW_SECONDS = 20;

  const theme = localStorage.getItem("zturbo.theme");
  if (theme) document.documentElement.dataset.theme = theme;

  const key = sessionStorage.getItem("zturbo.key");
  const headers = key ? { Authorization: `Bearer ${key}` } : undefined;
  /** @type {Window["zturbo"]["early"]} */
  const early = { readyz: fetch("readyz"), "v1/models": fetch("v1/models", { headers }) };
  // Who takes one hears of its failure; until then nobody has to.
  for (const call of Object.values(early)) call?.catch(() => {});

  let told = false;
  let whole = false;

  /** @param {string} sentence */
  function lost(sentence) {
    if (told || whole) return;
    told = true;
    const reloads = Number(sessionStorage.getItem(RELOADS));
    const wait = Math.min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** reloads);
    const text = document.createElement("p");
    text.textContent = `${sentence} Trying again in ${wait} s.`;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Reload";
    button.addEventListener("click", () => location.reload());
    const box = document.createElement("div");
    box.className = "lost";
    box.setAttribute("role", "alert");
    box.append(text, button);
    document.body.append(box);
    setTimeout(() => again(reloads), wait * 1000);
  }

  /** @param {number} reloads */
  async function again(reloads) {
    // Never away from a server that is gone: the browser's own page does not try again.
    for (;;) {
      const answer = await fetch("healthz", { cache: "no-store" }).catch(() => null);
      if (answer?.ok) break;
      await new Promise((resolve) => setTimeout(resolve, FIRST_WAIT_SECONDS * 1000));
    }
    sessionStorage.setItem(RELOADS, String(reloads + 1));
    location.reload();
  }

  function ready() {
    whole = true;
    sessionStorage.removeItem(RELOADS);
    document.querySelector(".lost")?.remove();
  }

  const missing = () => lost("A part of this page did not arrive.");
  addEventListener(
    "error",
    ({ target }) => {
      if (!(target instanceof HTMLScriptElement || target instanceof HTMLLinkElement)) return;
      if (document.body) missing();
      else addEventListener("DOMContentLoaded", missing);
    },
    true,
  );
  setTimeout(() => lost("This page takes long to load."), SLOW_SECONDS * 1000);
  window.zturbo = { early, lost, ready };
})();
