// Run by test_fal_client_js.py: node fal_client.mjs BASE MODE, prints the outcome as JSON.
import { createFalClient } from "@fal-ai/client";

const [base, mode] = process.argv.slice(2);
const MODEL = "fal-ai/z-image/turbo/controlnet/lora";
const input = { prompt: "a fox", image_url: "https://example.com/photo.jpg" };

const elsewhere = async (request) => ({
  ...request,
  url: request.url.replace("https://queue.fal.run", base),
});
const way = mode.includes("proxy")
  ? { proxyUrl: { url: `${base}/fal/proxy`, when: "always" } }
  : { requestMiddleware: elsewhere };
const fal = createFalClient({ credentials: "any", ...way });

const seen = [];
const onQueueUpdate = (update) => seen.push(update.status);
if (mode === "proxy-cancel") {
  const { request_id: requestId } = await fal.queue.submit(MODEL, { input });
  await fal.queue.cancel(MODEL, { requestId });
  const status = await fal.queue.status(MODEL, { requestId });
  console.log(JSON.stringify({ seen: [status.status], error: status.error_type }));
} else {
  const streaming = mode.endsWith("streaming") ? { mode: "streaming" } : { pollInterval: 100 };
  const result = await fal.subscribe(MODEL, { input, onQueueUpdate, ...streaming });
  console.log(JSON.stringify({ seen, data: result.data, requestId: result.requestId }));
}
