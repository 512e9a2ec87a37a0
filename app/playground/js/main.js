/** Puts the page together: who is told what, when. */

import { Api, ApiError } from "./api.js";
import { announce, still } from "./dom.js";
import { Draft } from "./draft.js";
import "./elements/composer.js";
import "./elements/gallery.js";
import "./elements/health.js";
import "./elements/key.js";
import "./elements/model.js";
import "./elements/runner.js";
import "./elements/stage.js";
import { fillExample } from "./example.js";
import { History } from "./history.js";
import { Run } from "./run.js";
import { readFields } from "./schema.js";
import { aspectOf } from "./sizes.js";

const MODEL = "zturbo.model";
/** The request on the stage, so that a reload finds it again. */
const SHOWN = "zturbo.shown";

const find = (tag) => document.querySelector(tag);
const [composer, runner, stage, recent, gallery, health, banner] = ["composer", "runner", "stage", "recent", "gallery", "health", "banner"].map((name) => find(`zt-${name}`));
const api = new Api((wasWrong) => find("zt-key").ask(wasWrong));
const history = new History(api);
let models = [];
let draft = null;
let run = null;

function useModel(modelId) {
  const model = models.find((each) => each.model_id === modelId) ?? models[0];
  if (draft?.modelId === model.model_id) return;
  sessionStorage.setItem(MODEL, model.model_id);
  draft = new Draft(model.model_id, readFields(model.input_schema));
  find("zt-model").show(models, model.model_id);
  composer.show({ api, draft, history, onExample: runExample });
  const reshape = () => stage.dataset.state === "rest" && (stage.aspect = aspectOf(draft.values.image_size, draft.natural));
  for (const event of ["change", "natural"]) draft.addEventListener(event, reshape);
  draft.addEventListener("change", () => runner.say(""));
  reshape();
}

async function start() {
  if (run || !draft) return;
  if (draft.broken) return runner.say(`The JSON is not whole: ${draft.broken}`);
  const missing = draft.missing();
  if (missing.length) return refuse(missing.map((field) => [field.name, `${field.title} is needed.`]));
  showView("create");
  const input = draft.body();
  await carryOut(input, (each) => each.submit(draft.modelId, input));
  return undefined;
}

async function runExample() {
  try {
    await fillExample(api, draft);
  } catch (error) {
    return explain(error);
  }
  return start();
}

/** Follows a run on the stage to its end; `input` is its body, null when that is not known. */
async function carryOut(input, go) {
  runner.say("");
  runner.running = true;
  stage.begin(input, draft.natural);
  if (matchMedia("(max-width: 899px)").matches) stage.scrollIntoView({ behavior: still() ? "auto" : "smooth", block: "center" });
  run = new Run(api, { onstatus: tell, onsubmitted: submitted });
  tell.said = "";
  try {
    const result = await go(run);
    stage.finish({ result, input });
    if (result.seed !== undefined) draft.lastSeed = result.seed;
    announce({ succeeded: "The picture is done.", cancelled: "Stopped." }[result.status] ?? "The request failed.");
  } catch (error) {
    stage.rest();
    explain(error);
  } finally {
    run = null;
    runner.running = false;
    document.title = "zturbo";
    history.refresh();
  }
}

function submitted({ request_id: requestId, warnings }) {
  sessionStorage.setItem(SHOWN, requestId);
  recent.shown = requestId;
  if (warnings) runner.say(warnings.join(" "));
  history.refresh();
}

function tell(status) {
  const words = stage.update(status);
  document.title = `${words} – zturbo`;
  if (status.status === tell.said) return;
  // Every step would be too much to listen to.
  announce(words);
  if (tell.said) history.refresh();
  tell.said = status.status;
}

/** What a call that was refused says, where it belongs. */
function explain(error) {
  if (error instanceof ApiError && error.faults.length) {
    return refuse(error.faults.map((fault) => [String(fault.loc[1] ?? ""), fault.msg]), error.message);
  }
  runner.say(error.message);
  if (!(error instanceof ApiError)) health.hurry();
  return undefined;
}

function refuse(faults, message = faults.map(([, text]) => text).join(" ")) {
  draft.setFaults(faults);
  runner.say(message);
  const control = document.getElementById(`field-${faults[0][0]}`);
  control?.focus();
  control?.scrollIntoView({ block: "nearest", behavior: still() ? "auto" : "smooth" });
}

function restore(entry) {
  if (entry.model_id) useModel(entry.model_id);
  const values = { ...entry.input };
  const seed = entry.seed ?? entry.result?.seed;
  // The seed that was drawn makes the same picture again; -1 would not.
  if (seed !== undefined && seed !== null) values.seed = seed;
  draft.restore(values);
  showView("create");
  announce("The settings are restored.");
}

async function open(entry) {
  if (run) return;
  showView("create");
  sessionStorage.setItem(SHOWN, entry.request_id);
  recent.shown = entry.request_id;
  try {
    const result = await api.get(`v1/requests/${entry.request_id}/result`);
    if (result.status.startsWith("in_")) await carryOut(entry.input, (each) => each.resume(entry.request_id));
    else stage.finish({ result, input: entry.input ?? null });
  } catch (error) {
    explain(error);
  }
}

function showView(name) {
  if (location.hash !== `#${name}`) location.hash = name;
  if (document.getElementById(`${name}-view`).hidden) scrollTo(0, 0);
  for (const view of ["create", "gallery"]) {
    document.getElementById(`${view}-view`).hidden = view !== name;
    const link = find(`a[href="#${view}"]`);
    if (view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

const viewOfHash = () => (location.hash === "#gallery" ? "gallery" : "create");

async function boot() {
  showView(viewOfHash());
  addEventListener("hashchange", () => showView(viewOfHash()));
  stage.setup({
    api,
    onExample: runExample,
    onLockSeed: (seed) => draft.set("seed", seed),
    onReuse: (url) => draft.set("image_url", url),
    onRestore: ({ input, result }) => restore({ input, result, model_id: result.model_id }),
  });
  runner.addEventListener("run", start);
  runner.addEventListener("stop", () => run?.stop().catch(explain));
  runner.addEventListener("reset", () => draft?.reset());
  const known = new Promise((resolve) => health.watch(api, (state) => resolve(banner.show(state))));
  await api.discover();
  models = (await api.get("v1/models")).models;
  useModel(sessionStorage.getItem(MODEL));
  find("zt-model").addEventListener("change", (event) => useModel(event.target.value));
  for (const view of [recent, gallery]) view.setup({ api, history, onOpen: open, onRestore: restore });
  await known;
  show();
  document.body.dataset.ready = "yes";
  await history.refresh();
  const shown = sessionStorage.getItem(SHOWN);
  const entry = history.entries.find((each) => each.request_id === shown);
  if (entry) await open(entry);
}

const show = () => document.body.removeAttribute("data-booting");

boot().catch((error) => {
  show();
  explain(error);
});
