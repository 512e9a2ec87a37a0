/** Puts the page together: who is told what, when. */

import { Api, ApiError, saying } from "./api.js";
import { announce, still } from "./dom.js";
import { Draft, savedDraft } from "./draft.js";
import "./elements/about.js";
import "./elements/composer.js";
import "./elements/gallery.js";
import "./elements/health.js";
import "./elements/key.js";
import "./elements/lightbox.js";
import "./elements/model.js";
import "./elements/recent.js";
import "./elements/runner.js";
import "./elements/stage.js";
import "./elements/theme.js";
import { fillExample } from "./examples.js";
import { History, isPending } from "./history.js";
import { integer } from "./json.js";
import { target } from "./models.js";
import { readModel } from "./schema.js";
import { aspectOf } from "./sizes.js";
import { Watch } from "./watch.js";

/** @import {Example} from "./examples.js" */
/** @import {Entry, Model, Result, Run, Shown, Status, Values} from "./types" */

/** The request on the stage, so that a reload finds it again. */
const SHOWN = "zturbo.shown";
const IMAGE = "image_url";
const VIEWS = /** @type {const} */ (["create", "gallery"]);

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 */
const find = (tag) => /** @type {HTMLElementTagNameMap[Tag]} */ (document.querySelector(tag));
const [composer, runner, stage, about] = [find("zt-composer"), find("zt-runner"), find("zt-stage"), find("zt-about")];
const [recent, gallery, lightbox] = [find("zt-recent"), find("zt-gallery"), find("zt-lightbox")];
const [health, banner, modelChoice] = [find("zt-health"), find("zt-banner"), find("zt-model")];

const api = new Api((wasWrong) => find("zt-key").ask(wasWrong));
const history = new History(api);
const watch = new Watch(api, { begin, status, end, fault: explain, lost: () => health.hurry(), idle });
/** @type {Model[]} */
let models = [];
/** @type {Draft} */
let draft;
/** The words of the last status, so that each is said once. */
let said = "";

/** @param {Draft} fresh the one that the form, the JSON view and the code show from now on */
function useDraft(fresh) {
  draft = fresh;
  modelChoice.show(models, draft.model);
  composer.show({ api, draft, target: targetNow });
  const changed = () => {
    const { model, values } = targetNow();
    modelChoice.tell(draft.model, model);
    if (stage.dataset.state === "rest") stage.aspect = aspectOf(values.image_size, draft.natural);
  };
  for (const event of ["change", "natural"]) draft.addEventListener(event, changed);
  draft.addEventListener("change", () => runner.say(""));
  changed();
}

const targetNow = () => target(models, draft.model, draft.body());

/**
 * Changes to a model; what the user put into a field that it has, too, stays.
 * @param {Model | undefined} model
 */
function useModel(model) {
  if (model && model !== draft.model) useDraft(new Draft(model, draft.changed));
}

async function start() {
  if (draft.arriving.size) {
    const names = [...draft.arriving.keys()];
    runner.sending = true;
    await Promise.all(draft.arriving.values());
    runner.sending = false;
    const fault = names.map((name) => draft.faults.get(name)).find(Boolean);
    if (fault) return runner.say(fault);
  }
  if (draft.broken) return runner.say(draft.broken);
  const { model, values } = targetNow();
  const missing = model.fields.filter((field) => field.required && (values[field.name] ?? "") === "");
  if (missing.length) return refuse(missing.map((field) => [field.name, `${field.title} is needed.`]));
  return send(model.id, values, draft.natural);
}

/**
 * Sends a request and watches it. What is refused leaves the stage as it is.
 * @param {string} modelId
 * @param {Values} input
 * @param {Run["size"]} size of the control image
 */
async function send(modelId, input, size) {
  runner.say("");
  runner.sending = true;
  try {
    const { request_id: id, warnings } = await api.post(`v1/models/${modelId}`, input);
    showView("create");
    if (warnings) runner.say(warnings.join(" "));
    if (watch.current) announce("In line behind the one that runs.");
    watch.add({ id, modelId, input, size });
    history.refresh();
  } catch (error) {
    explain(error);
  } finally {
    runner.sending = false;
  }
}

/** @param {Example} example */
async function runExample(example) {
  try {
    const wanted = [...Object.keys(example.values), IMAGE];
    const hasAll = (/** @type {Model} */ model) =>
      wanted.every((name) => model.fields.some((field) => field.name === name));
    if (example.image && !hasAll(draft.model)) useModel(models.find(hasAll));
    await fillExample(api, draft, example);
    await start();
  } catch (error) {
    explain(error);
  }
}

/** @param {Run} run */
function begin(run) {
  said = "";
  show(run.id);
  runner.watching = true;
  stage.begin(run);
  if (matchMedia("(max-width: 639px)").matches) {
    stage.scrollIntoView({ behavior: still() ? "auto" : "smooth", block: "center" });
  }
}

/** @param {Status} fresh */
function status(fresh) {
  const words = stage.update(fresh);
  document.title = `${words} – zturbo`;
  // Every step would be too much to listen to.
  if (fresh.status === said) return;
  announce(words);
  if (said) history.refresh();
  said = fresh.status;
}

/**
 * @param {Run} run
 * @param {Result} result
 */
function end(run, result) {
  stage.finish({ result, input: run.input });
  if (result.seed !== undefined) draft.lastSeed = result.seed;
  announce(
    { succeeded: "The picture is done.", cancelled: "Stopped." }[String(result.status)] ?? "The request failed.",
  );
  history.refresh();
}

function idle() {
  runner.watching = false;
  document.title = "zturbo";
  if (stage.dataset.state === "running") stage.rest();
}

/**
 * What a call that was refused says, where it belongs.
 * @param {unknown} error
 */
function explain(error) {
  if (error instanceof ApiError && error.faults.length) {
    return refuse(
      error.faults.map(({ loc, msg }) => [String(loc[1] ?? ""), msg]),
      error.message,
    );
  }
  runner.say(saying(error));
  if (!(error instanceof ApiError)) health.hurry();
}

/** @param {[string, string][]} faults by field */
function refuse(faults, message = faults.map(([, text]) => text).join(" ")) {
  draft.setFaults(faults);
  runner.say(message);
  const control = document.getElementById(`field-${faults[0][0]}`);
  const folded = control?.closest("details");
  if (folded) folded.open = true;
  control?.focus();
  control?.scrollIntoView({ block: "nearest", behavior: still() ? "auto" : "smooth" });
}

/**
 * Puts every setting of a request back into the form.
 * @param {string} modelId
 * @param {Values | null | undefined} input
 * @param {Result["seed"]} seed the one that was drawn makes the same picture again; -1 would not
 */
function restore(modelId, input, seed) {
  useModel(models.find((model) => model.id === modelId));
  draft.restore(seed === undefined ? { ...input } : { ...input, seed });
  showView("create");
  announce("The settings are restored.");
}

/**
 * The same request once more, with the seeds that come after its own.
 * @param {Shown} shown
 */
function sendNextSeed({ result, input }) {
  const seed = integer(BigInt(result.seed ?? 0) + BigInt(input?.num_images ?? 1));
  return send(result.model_id, { ...input, seed }, null);
}

/** @param {Entry} entry */
function open(entry) {
  showView("create");
  return stageEntry(entry);
}

/** @param {Entry} entry */
async function stageEntry(entry) {
  const { request_id: id, model_id: modelId, input = null } = entry;
  if (watch.current?.id === id && recent.current === id) return;
  watch.leave();
  show(id);
  try {
    /** @type {Result} */
    const result = await api.get(`v1/requests/${id}/result`);
    // Another one came onto the stage meanwhile.
    if (recent.current !== id) return;
    if (isPending(result)) watch.only({ id, modelId, input, size: null });
    else stage.finish({ result, input });
  } catch (error) {
    explain(error);
  }
}

/** @param {string} requestId */
function show(requestId) {
  sessionStorage.setItem(SHOWN, requestId);
  recent.shown = requestId;
}

/** @param {typeof VIEWS[number]} name */
function showView(name) {
  if (location.hash !== `#${name}`) location.hash = name;
  for (const view of VIEWS) {
    const element = /** @type {HTMLElement} */ (document.getElementById(`${view}-view`));
    if (view === name && element.hidden) scrollTo(0, 0);
    element.hidden = view !== name;
    const link = document.querySelector(`a[href="#${view}"]`);
    if (view === name) link?.setAttribute("aria-current", "page");
    else link?.removeAttribute("aria-current");
  }
}

const viewOfHash = () => (location.hash === "#gallery" ? "gallery" : "create");

async function boot() {
  showView(viewOfHash());
  addEventListener("hashchange", () => showView(viewOfHash()));
  stage.setup({
    api,
    onExample: runExample,
    onReuse: (url) => draft.set(IMAGE, url),
    onRestore: ({ input, result }) => restore(result.model_id, input, result.seed),
    onNextSeed: sendNextSeed,
    onOpen: (shown, index) => lightbox.open(shown, index),
    onShow: (shown, picture) => about.show(shown, picture),
  });
  lightbox.setup({ api, onNextSeed: sendNextSeed });
  about.onLockSeed = (seed) => draft.set("seed", seed);
  runner.addEventListener("run", start);
  runner.addEventListener("stop", () => watch.current && stop(watch.current.id));
  runner.addEventListener("reset", () => draft.reset());
  const known = new Promise((resolve) => health.watch(api, (state) => resolve(banner.show(state))));
  models = (await api.get("v1/models")).models.map(readModel);
  useDraft(savedDraft(models));
  modelChoice.addEventListener("change", () => useModel(models.find((model) => model.id === modelChoice.value)));
  recent.setup({ api, history, onOpen: open, onStop: ({ request_id: id }) => stop(id) });
  gallery.setup({ api, history, onOpen: open, onRestore: ({ model_id: id, input, seed }) => restore(id, input, seed) });
  await known;
  document.body.removeAttribute("data-booting");
  document.body.dataset.ready = "yes";
  window.zturbo.ready();
  await history.refresh();
  const shown = sessionStorage.getItem(SHOWN);
  const entry = history.entries.find((each) => each.request_id === shown);
  // Whoever looks at the gallery by now goes on looking.
  if (entry) await stageEntry(entry);
}

/** @param {string} requestId */
const stop = (requestId) => history.stop(requestId).catch(explain);

boot().catch((error) => window.zturbo.lost(saying(error)));
