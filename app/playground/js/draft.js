/** The request as it stands: what the form, the JSON view and the code all show and change. */

const SAVED = "zturbo.draft:";
/** Of the saved text; a pasted picture must not fill the browser's storage. */
const MOST_SAVED_CHARACTERS = 200_000;

/** Fires `change` after a change of `values`, `faults` after one of `faults`. */
export class Draft extends EventTarget {
  constructor(modelId, fields) {
    super();
    this.modelId = modelId;
    this.fields = fields;
    /** What is wrong with a field, by its name. */
    this.faults = new Map();
    /** The last seed that the server used. */
    this.lastSeed = null;
    this.values = this.saved() ?? this.initial();
  }

  field(name) {
    return this.fields.find((field) => field.name === name);
  }

  /** undefined takes the field out of the request. */
  set(name, value) {
    this.replace({ ...this.values, [name]: value });
  }

  replace(values) {
    const known = this.fields.map((field) => field.name).filter((name) => name in values);
    const names = new Set([...known, ...Object.keys(values)]);
    this.values = Object.fromEntries([...names].map((name) => [name, values[name]]).filter(([, value]) => value !== undefined));
    for (const name of this.faults.keys()) this.faults.delete(name);
    this.save();
    this.dispatchEvent(new Event("change"));
    this.dispatchEvent(new Event("faults"));
  }

  reset() {
    this.replace(this.initial());
  }

  /** Every field of an earlier request; those that it left out get their defaults. */
  restore(values) {
    this.replace({ ...this.initial(), ...values });
  }

  setFaults(faults) {
    this.faults = new Map(faults);
    this.dispatchEvent(new Event("faults"));
  }

  /** The required fields that are still empty. */
  missing() {
    return this.fields.filter((field) => field.required && (this.values[field.name] ?? "") === "");
  }

  /** The body to send: LoRA rows that were added and left empty are none. */
  body() {
    const body = structuredClone(this.values);
    if (Array.isArray(body.loras)) body.loras = body.loras.filter((lora) => lora.path !== "");
    return body;
  }

  initial() {
    return Object.fromEntries(
      this.fields.map((field) => [field.name, field.name === "seed" ? drawn(field) : field.initial]).filter(([, value]) => value !== undefined),
    );
  }

  saved() {
    try {
      return JSON.parse(sessionStorage.getItem(SAVED + this.modelId));
    } catch {
      return null;
    }
  }

  save() {
    const text = JSON.stringify(this.values);
    if (text.length < MOST_SAVED_CHARACTERS) sessionStorage.setItem(SAVED + this.modelId, text);
  }
}

/** The value of a seed field that lets the server draw one: -1 where that is allowed, else nothing at all. */
export function drawn(field) {
  return field.minimum === undefined || field.minimum < 0 ? -1 : undefined;
}
