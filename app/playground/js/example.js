/** A request to begin with: the image gives the shapes, the prompt other colours. */

const IMAGE = "playground/example.jpg";

const VALUES = {
  prompt: "A blue ball and a yellow cone on sand under a sunset sky",
  preprocess: "canny",
  control_end: 0.8,
};

/** Puts the example into a draft, as far as its model has the fields. */
export async function fillExample(api, draft) {
  const values = Object.fromEntries(Object.entries(VALUES).filter(([name]) => draft.field(name)));
  if (draft.field("image_url")) {
    const blob = await (await api.fetch(IMAGE)).blob();
    values.image_url = await api.upload(new File([blob], "example.jpg", { type: blob.type }));
  }
  draft.restore(values);
}
