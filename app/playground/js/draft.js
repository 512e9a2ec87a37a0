/** The request as it stands: what the form, the JSON view and the code all show and change. */

import { parse, stringify } from "./json.js";

/** @import {Field, Model, Size, Values} from "./types" */

const SAVED = "zturbo.draft";
/** Of the saved text; a pasted picture must not fill the browser's storage. */
const MOST_SAVED_CHARACTERS = 200_000;

/**
 * Fires `change` after a change of `values`, `faults` after one of `faults`, `natural` after one of `natural` or
 * `photograph`.
 */
export class Draft extends EventTarget {
  /**
   * What is wrong with a field, by its name.
   * @type {Map<string, string>}
   */
  faults = new Map();
  /**
   * The last seed that the server used.
   * @type {number | bigint | null}
   */
  lastSeed = null;
  /**
   * The size of the control image, once it is known.
   * @type {Size | null}
   */
  natural = null;
  /** Whether the control image looks like a photograph, which is no control map. */
  photograph = false;
  /**
   * By field, a picture on its way to the server: done when it is in `values`, or its fault in `faults`.
   * @type {Map<string, Promise<void>>}
   */
  arriving = new Map();
  /** Why the JSON view's text is no request; empty when it is one. */
  broken = "";

  /**
   * @param {Model} model
   * @param {Values} changed values that stand beside the defaults; those that the model has no field for are kept
   *   for a model that has one
   */
  constructor(model, changed = {}) {
    super();
    this.model = model;
    this.fields = model.fields;
    const fits = Object.entries(changed).filter(([name, value]) => {
      const field = this.field(name);
      return field && (!field.options || field.options.includes(value));
    });
    this.elsewhere = Object.fromEntries(Object.entries(changed).filter(([name]) => !this.field(name)));
    /** @type {Values} */
    this.values = { ...this.initial(), ...Object.fromEntries(fits) };
    this.save();
  }

  /** @param {string} name */
  field(name) {
    return this.fields.find((field) => field.name === name);
  }

  /** What differs from the defaults, for a draft of another model. */
  get changed() {
    const initial = this.initial();
    const own = Object.entries(this.values).filter(([name, value]) => stringify(value) !== stringify(initial[name]));
    return { ...this.elsewhere, ...Object.fromEntries(own) };
  }

  /**
   * @param {string} name
   * @param {unknown} value undefined takes the field out of the request
   */
  set(name, value) {
    this.replace({ ...this.values, [name]: value });
  }

  /** @param {Values} values */
  replace(values) {
    const known = this.fields.map((field) => field.name).filter((name) => name in values);
    const names = new Set([...known, ...Object.keys(values)]);
    this.values = defined([...names].map((name) => [name, values[name]]));
    this.faults.clear();
    this.save();
    this.dispatchEvent(new Event("change"));
    this.dispatchEvent(new Event("faults"));
  }

  reset() {
    this.elsewhere = {};
    this.replace(this.initial());
  }

  /**
   * Every field of an earlier request; those that it left out get their defaults.
   * @param {Values} values
   */
  restore(values) {
    this.replace({ ...this.initial(), ...values });
  }

  /** @param {Iterable<[string, string]>} faults */
  setFaults(faults) {
    this.faults = new Map(faults);
    this.dispatchEvent(new Event("faults"));
  }

  /**
   * @param {Size | null} size
   * @param {boolean} photograph
   */
  measure(size, photograph = false) {
    this.natural = size;
    this.photograph = photograph;
    this.dispatchEvent(new Event("natural"));
  }

  /** The request to send: LoRA rows that were added and left empty are none. */
  body() {
    const body = structuredClone(this.values);
    if (Array.isArray(body.loras)) body.loras = body.loras.filter((lora) => lora.path !== "");
    return body;
  }

  /** @returns {Values} */
  initial() {
    return defined(this.fields.map((field) => [field.name, field.name === "seed" ? drawn(field) : field.initial]));
  }

  save() {
    const text = stringify({ model: this.model.id, changed: this.changed });
    if (text.length < MOST_SAVED_CHARACTERS) localStorage.setItem(SAVED, text);
  }
}

/**
 * The draft that was last saved in this browser, for one of the models; else an empty one for the first.
 * @param {Model[]} models
 */
export function savedDraft(models) {
  let saved;
  try {
    saved = parse(localStorage.getItem(SAVED) ?? "");
  } catch {
    saved = null;
  }
  return new Draft(models.find((model) => model.id === saved?.model) ?? models[0], saved?.changed);
}

/**
 * The value of a seed field that lets the server draw one: -1 where that is allowed and the field has a default, else
 * nothing at all.
 * @param {Field} field
 */
export function drawn(field) {
  const negative = field.minimum === undefined || field.minimum < 0;
  return negative && field.initial !== undefined ? -1 : undefined;
}

/**
 * @param {[string, unknown][]} entries
 * @returns {Values}
 */
const defined = (entries) => Object.fromEntries(entries.filter(([, value]) => value !== undefined));
