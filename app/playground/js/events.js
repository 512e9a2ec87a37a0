/** Following a request to its end: by server-sent events, and by asking again and again where those fail. */

const POLL_MS = 400;
const RETRY_MS = 1500;
const FINISHED = new Set(["completed", "cancelled"]);

/**
 * Yields the request's status each time it changed, and last `{result}`, the body of its result route.
 * Goes on when the connection breaks or the server asks to come again (503); throws what the server refuses.
 */
export async function* follow(api, requestId) {
  if (api.has("/v1/requests/{request_id}/events")) {
    for await (const { event, data } of streamed(api, requestId)) {
      if (event === "result") {
        yield { result: data };
        return;
      }
      if (event === "status") yield data;
    }
  }
  yield* polled(api, requestId);
}

/** The stream's events until it ends or breaks. EventSource is of no use: it cannot send the key. */
async function* streamed(api, requestId) {
  let answer;
  try {
    answer = await api.fetch(`v1/requests/${requestId}/events`);
  } catch (error) {
    if (isRefusal(error)) throw error;
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch {
      return;
    }
    if (chunk.done) return;
    const blocks = (rest + chunk.value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const message = readEvent(block);
      if (message.data !== undefined) yield message;
    }
  }
}

/** One block of an event stream; without `data` for a comment. */
function readEvent(block) {
  const message = { event: "message", data: undefined };
  const lines = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) message.event = line.slice(6).trim();
    if (line.startsWith("data:")) lines.push(line.slice(5));
  }
  if (lines.length) message.data = JSON.parse(lines.join("\n"));
  return message;
}

async function* polled(api, requestId) {
  for (;;) {
    let status;
    try {
      status = await api.get(`v1/requests/${requestId}/status`);
      yield status;
      if (FINISHED.has(status.status)) {
        yield { result: await api.get(`v1/requests/${requestId}/result`) };
        return;
      }
    } catch (error) {
      if (isRefusal(error)) throw error;
      await pause(RETRY_MS);
    }
    await pause(POLL_MS);
  }
}

/** An answer that will be the same later; 503 says that it will not be. */
const isRefusal = ({ status }) => status !== undefined && status !== 503;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
