// Run by test_fal_client_js.py: node fal_client.mjs BASE proxy|middleware WHAT, prints the outcome as JSON.
import { createFalClient } from "@fal-ai/client";

const [base, way, what] = process.argv.slice(2);
const MODEL = "fal-ai/z-image/turbo/controlnet/lora";
const input = { prompt: "a fox", image_url: "https://example.com/photo.jpg" };

// As docs/clients.md has it.
const PLACES = { "https://queue.fal.run": base, "https://fal.run": `${base}/fal/run`, "https://rest.fal.ai": `${base}/fal/rest` };
const elsewhere = async (request) => {
  const { origin } = new URL(request.url);
  return { ...request, url: request.url.replace(origin, PLACES[origin]) };
};
const ways = {
  proxy: { proxyUrl: { url: `${base}/fal/proxy`, when: "always" } },
  middleware: { requestMiddleware: elsewhere },
};
const fal = createFalClient({ credentials: "any", ...ways[way] });

const doings = {
  async subscribe(options) {
    const seen = [];
    const said = [];
    const onQueueUpdate = (update) => {
      seen.push(update.status);
      // As in fal's own examples.
      if (update.status === "IN_PROGRESS") update.logs.map((log) => log.message).forEach((line) => said.push(line));
    };
    const result = await fal.subscribe(MODEL, { input, logs: true, onQueueUpdate, ...options });
    return { seen, said, data: result.data };
  },
  polling: () => doings.subscribe({ pollInterval: 100 }),
  streaming: () => doings.subscribe({ mode: "streaming" }),
  run: async () => ({ data: (await fal.run(MODEL, { input })).data }),
  async upload() {
    // A Blob in the input is uploaded by the client, and its URL sent in its place.
    const image = new Blob([Buffer.from(process.env.PICTURE, "base64")], { type: "image/png" });
    const { request_id: requestId } = await fal.queue.submit(MODEL, { input: { ...input, image_url: image } });
    return { requestId };
  },
  async cancel() {
    const { request_id: requestId } = await fal.queue.submit(MODEL, { input });
    await fal.queue.cancel(MODEL, { requestId });
    const status = await fal.queue.status(MODEL, { requestId });
    return { status: status.status, error: status.error_type };
  },
  async refused() {
    const error = await fal.subscribe(MODEL, { input: { prompt: "a fox" } }).catch((thrown) => thrown);
    return { name: error.name, status: error.status, faults: error.getFieldErrors("image_url") };
  },
  async failed() {
    const error = await fal.subscribe(MODEL, { input }).catch((thrown) => thrown);
    return { status: error.status, message: error.message };
  },
};
console.log(JSON.stringify(await doings[what]()));
