/** Calls to the server that this page came from: the one place for the key and for what an error answer says. */

const KEY = "zturbo.key";

/** An answer that is not 2xx. `faults` are those of a refused input: `{loc: ["body", name, …], msg}`. */
export class ApiError extends Error {
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
  /** `askKey(wasWrong)` resolves to the key that the user typed. */
  constructor(askKey) {
    this.base = new URL(".", document.baseURI);
    this.askKey = askKey;
    this.paths = new Set();
    this.asking = null;
  }

  /** Learns which routes this server has. */
  async discover() {
    this.paths = new Set(Object.keys((await this.get("openapi.json")).paths));
  }

  /** Whether the server has a route; parameters as the server names them: `/v1/requests/{request_id}/events`. */
  has(path) {
    return this.paths.has(path);
  }

  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  /** The absolute URL of a path without a slash in front. */
  url(path) {
    return new URL(path, this.base).href;
  }

  get(path) {
    return this.json("GET", path);
  }

  post(path, body, signal) {
    return this.json("POST", path, body, signal);
  }

  /** A file's URL on this server; without the route for it, a data URI. */
  async upload(file) {
    if (!this.has("/v1/files")) return readAsDataUri(file);
    const form = new FormData();
    form.append("file", file);
    return (await this.post("v1/files", form)).url;
  }

  delete(path) {
    return this.json("DELETE", path);
  }

  async json(method, path, body, signal) {
    const answer = await this.fetch(path, { method, body, signal });
    const text = await answer.text();
    return text ? JSON.parse(text) : null;
  }

  /** The Response, once it is 2xx. Asks for a key when the server wants one. Throws ApiError or Unreachable. */
  async fetch(path, { method = "GET", body, signal } = {}) {
    for (;;) {
      const key = this.key;
      const headers = key ? { Authorization: `Bearer ${key}` } : {};
      const form = body instanceof FormData;
      if (body !== undefined && !form) headers["Content-Type"] = "application/json";
      let answer;
      try {
        answer = await fetch(this.url(path), {
          method,
          headers,
          signal,
          body: form || body === undefined ? body : JSON.stringify(body),
        });
      } catch (error) {
        throw error.name === "AbortError" ? error : new Unreachable();
      }
      if (answer.ok) return answer;
      if (answer.status !== 401) throw await readError(answer);
      // Another call may have asked while this one was on its way.
      if (this.key === key) await this.newKey(key !== "");
    }
  }

  /** Asks once, however many calls wait for the key. */
  newKey(wasWrong) {
    this.asking ??= this.askKey(wasWrong).then((key) => {
      this.key = key;
      this.asking = null;
    });
    return this.asking;
  }

  /** A picture that this server holds, under the address at which this page sees the server; else null. */
  ownFile(url) {
    const path = url.match(/\/(v1\/files\/[^/?#]+\/[^/?#]+)$/)?.[1];
    return path ? this.url(path) : null;
  }

  /** What an <img> here may show for a URL: the page's policy keeps pictures of other servers out. */
  showable(url) {
    return url.startsWith("data:image/") ? url : this.ownFile(url);
  }
}

function readAsDataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function readError(answer) {
  const body = await answer.json().catch(() => ({}));
  const faults = Array.isArray(body.detail) ? body.detail : [];
  return new ApiError(answer.status, body.error_message ?? `The server answered ${answer.status}.`, faults);
}
