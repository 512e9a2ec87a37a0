/** Calls to the server that this page came from: the one place for the key and for what an error answer says. */

import { parse, stringify } from "./json.js";

const KEY = "zturbo.key";

/** @typedef {{loc: (string | number)[], msg: string}} Fault `loc` is `["body", name, …]`. */

/** An answer that is not 2xx; `faults` are those of a refused input. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {Fault[]} faults
   */
  constructor(status, message, faults = []) {
    super(message);
    this.status = status;
    this.faults = faults;
  }
}

/** The server did not answer at all. */
class Unreachable extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

export class Api {
  base = new URL(".", document.baseURI);
  /** @type {Promise<void> | null} */
  asking = null;

  /** @param {(wasWrong: boolean) => Promise<string>} askKey resolves to the key that the user typed */
  constructor(askKey) {
    this.askKey = askKey;
  }

  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  /**
   * The absolute URL of a path without a slash in front.
   * @param {string} path
   */
  url(path) {
    return new URL(path, this.base).href;
  }

  /** @param {string} path */
  get(path) {
    return this.json("GET", path);
  }

  /**
   * @param {string} path
   * @param {unknown} [body]
   * @param {AbortSignal} [signal]
   */
  post(path, body, signal) {
    return this.json("POST", path, body, signal);
  }

  /**
   * Keeps a picture on the server; its URL there.
   * @param {File} file
   * @returns {Promise<string>}
   */
  async upload(file) {
    const form = new FormData();
    form.append("file", file);
    return (await this.post("v1/files", form)).url;
  }

  /** @param {string} path */
  delete(path) {
    return this.json("DELETE", path);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>}
   */
  async json(method, path, body, signal) {
    const answer = await this.fetch(path, { method, body, signal });
    const text = await answer.text();
    return text ? parse(text) : null;
  }

  /**
   * The answer, once it is 2xx. Asks for a key when the server wants one. Throws ApiError or Unreachable.
   * @param {string} path
   * @param {{method?: string, body?: unknown, signal?: AbortSignal}} [options]
   */
  async fetch(path, { method = "GET", body, signal } = {}) {
    for (;;) {
      const { key } = this;
      const answer = await this.send(path, method, body, signal);
      if (answer.ok) return answer;
      if (answer.status !== 401) throw await readError(answer);
      // Another call may have asked while this one was on its way.
      if (this.key === key) await this.newKey(key !== "");
    }
  }

  /**
   * @param {string} path
   * @param {string} method
   * @param {unknown} body
   * @param {AbortSignal} [signal]
   */
  async send(path, method, body, signal) {
    const early = method === "GET" ? window.zturbo.early[path] : undefined;
    delete window.zturbo.early[path];
    const form = body instanceof FormData;
    /** @type {Record<string, string>} */
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    if (body !== undefined && !form) headers["Content-Type"] = "application/json";
    try {
      const sent = form ? body : body === undefined ? undefined : stringify(body);
      return await (early ?? fetch(this.url(path), { method, headers, signal, body: sent }));
    } catch (error) {
      throw isAbort(error) ? error : new Unreachable();
    }
  }

  /**
   * Asks once, however many calls wait for the key.
   * @param {boolean} wasWrong
   */
  newKey(wasWrong) {
    this.asking ??= this.askKey(wasWrong).then((key) => {
      this.key = key;
      this.asking = null;
    });
    return this.asking;
  }

  /**
   * A picture that this server holds, under the address at which this page sees the server; else null.
   * @param {string} url
   */
  ownFile(url) {
    const path = url.match(/\/(v1\/files\/[^/?#]+\/[^/?#]+)$/)?.[1];
    return path ? this.url(path) : null;
  }

  /**
   * What an <img> here may show for a URL: the page's policy keeps pictures of other servers out.
   * @param {string} url
   */
  showable(url) {
    return url.startsWith("data:image/") ? url : this.ownFile(url);
  }
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof Error && error.name === "AbortError";

/**
 * What an exception says.
 * @param {unknown} error
 */
export const saying = (error) => (error instanceof Error ? error.message : String(error));

/**
 * What is wrong with a file that was sent, for beside its field.
 * @param {unknown} error
 */
export const faultOf = (error) => (error instanceof ApiError && error.faults[0]?.msg) || saying(error);

/** @param {Response} answer */
async function readError(answer) {
  const body = await answer.json().catch(() => ({}));
  const faults = Array.isArray(body.detail) ? body.detail : [];
  return new ApiError(answer.status, body.error_message ?? `The server answered ${answer.status}.`, faults);
}
