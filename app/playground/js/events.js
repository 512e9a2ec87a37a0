/** Following a request to its end: by server-sent events, and by asking again and again where those fail. */

import { isAbort } from "./api.js";
import { parse } from "./json.js";

/** @import {Api} from "./api.js" */
/** @import {Result, Status} from "./types" */

const POLL_MS = 400;
const RETRY_MS = 1500;
const FINISHED = new Set(["completed", "cancelled"]);

/**
 * Yields the request's status each time it changed, and last `{result}`, the body of its result route.
 * Goes on when the connection breaks or the server asks to come again (503), and calls `onlost` each time; throws
 * what the server refuses, and an AbortError once `signal` is aborted.
 * @param {Api} api
 * @param {string} requestId
 * @param {{signal: AbortSignal, onlost: () => void}} options
 * @returns {AsyncGenerator<{status: Status, result?: undefined} | {status?: undefined, result: Result}>}
 */
export async function* follow(api, requestId, { signal, onlost }) {
  for await (const { event, data } of streamed(api, requestId, signal)) {
    if (event === "status") yield { status: data };
    if (event === "result") {
      yield { result: data };
      return;
    }
  }
  onlost();
  yield* polled(api, requestId, signal, onlost);
}

/**
 * The stream's events until it ends or breaks. EventSource is of no use: it cannot send the key.
 * @param {Api} api
 * @param {string} requestId
 * @param {AbortSignal} signal
 */
async function* streamed(api, requestId, signal) {
  let rest = "";
  try {
    const { body } = await api.fetch(`v1/requests/${requestId}/events`, { signal });
    if (!body) return;
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + chunk).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const message = readEvent(block);
        if (message.data !== undefined) yield message;
      }
    }
  } catch (error) {
    if (isAbort(error) || isRefusal(error)) throw error;
  }
}

/**
 * One block of an event stream; without `data` for a comment.
 * @param {string} block
 */
function readEvent(block) {
  let event = "message";
  const lines = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    if (line.startsWith("data:")) lines.push(line.slice(5));
  }
  return { event, data: lines.length ? parse(lines.join("\n")) : undefined };
}

/**
 * @param {Api} api
 * @param {string} requestId
 * @param {AbortSignal} signal
 * @param {() => void} onlost
 * @returns {AsyncGenerator<{status: Status, result?: undefined} | {status?: undefined, result: Result}>}
 */
async function* polled(api, requestId, signal, onlost) {
  for (;;) {
    signal.throwIfAborted();
    try {
      /** @type {Status} */
      const status = await api.get(`v1/requests/${requestId}/status`);
      yield { status };
      if (FINISHED.has(status.status)) {
        yield { result: await api.get(`v1/requests/${requestId}/result`) };
        return;
      }
    } catch (error) {
      if (isRefusal(error)) throw error;
      onlost();
      await pause(RETRY_MS);
    }
    await pause(POLL_MS);
  }
}

/**
 * An answer that will be the same later; 503 says that it will not be.
 * @param {any} error
 */
const isRefusal = ({ status }) => status !== undefined && status !== 503;

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
