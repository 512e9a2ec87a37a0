// Run by test_openai_js.py: node openai_clients.mjs BASE WHAT, prints the outcome as JSON.
const [base, what] = process.argv.slice(2);
const PROMPT = "a fox";

const openai = async () => {
  const { OpenAI } = await import("openai");
  return new OpenAI({ baseURL: `${base}/v1`, apiKey: "any" });
};

// As docs/clients.md has it.
const ask = async (model, options) => {
  const { generateImage } = await import("ai");
  const { images } = await generateImage({ model, prompt: PROMPT, ...options });
  return images.map((image) => image.base64);
};

const doings = {
  async openai() {
    const made = await (await openai()).images.generate({ model: "gpt-image-1", prompt: PROMPT, size: "512x512", seed: 3 });
    return { pictures: made.data.map((picture) => picture.b64_json), size: made.size };
  },
  async stream() {
    const events = [];
    const stream = await (await openai()).images.generate({ model: "x", prompt: PROMPT, stream: true, partial_images: 1 });
    for await (const event of stream) events.push([event.type, event.b64_json]);
    return { events };
  },
  async edit() {
    const { toFile } = await import("openai");
    const image = await toFile(Buffer.from(process.env.PICTURE, "base64"), "a.png", { type: "image/png" });
    const loras = [{ path: "owner/one", scale: 0.5 }, { path: "owner/two", scale: 1 }];
    const made = await (await openai()).images.edit({ model: "x", image, prompt: PROMPT, preprocess: "canny", loras });
    return { pictures: made.data.map((picture) => picture.b64_json) };
  },
  async refused() {
    const error = await (await openai()).images.generate({ model: "x", prompt: PROMPT, n: 9 }).catch((thrown) => thrown);
    return { name: error.constructor.name, status: error.status, param: error.param, message: error.message };
  },
  async models() {
    const ids = [];
    for await (const model of (await openai()).models.list()) ids.push(model.id);
    return { ids, one: (await (await openai()).models.retrieve(ids[0])).id };
  },
  async hangUp() {
    const patience = new AbortController();
    const call = (await openai()).images.generate({ model: "x", prompt: PROMPT }, { signal: patience.signal });
    const thrown = call.catch((error) => error);
    const known = async () => (await (await fetch(`${base}/v1/requests`)).json()).requests.length;
    while (!(await known())) await new Promise((done) => setTimeout(done, 20));
    patience.abort();
    return { name: (await thrown).constructor.name };
  },
  async aiSdk() {
    const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
    const provider = createOpenAICompatible({ name: "zturbo", baseURL: `${base}/v1`, apiKey: "any" });
    return { pictures: await ask(provider.imageModel("tongyi-mai/z-image/turbo"), { size: "512x512", seed: 3 }) };
  },
  async aiSdkFal() {
    const { createFal } = await import("@ai-sdk/fal");
    const provider = createFal({ baseURL: `${base}/fal/run`, apiKey: "any" });
    return { pictures: await ask(provider.image("fal-ai/z-image/turbo"), { size: "512x512", seed: 3 }) };
  },
};
console.log(JSON.stringify(await doings[what]()));
