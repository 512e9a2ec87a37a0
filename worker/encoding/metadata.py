"""What is said inside a picture's file about how it was made, and how to read it back.

Two texts: `parameters`, the form that other tools read (AUTOMATIC1111's: the prompt, then one line of
`Name: value` pairs), and `zturbo`, our own JSON object, made by `describe`:

    version, model_id, model       what made it
    prompt, expanded_prompt        as asked, and as rewritten (null when it was not)
    seed, num_inference_steps, width, height
    seed_variance                  only where it is not 0
    strength                       null where the picture starts from no image
    control                        null without a control branch, else preprocess, control_scale,
                                   control_start, control_end, controlnet
    loras                          name, scale, sha256 of each
    request                        the request body that made it

A picture is passed on, so nothing in it opens what it was made from. URLs may hold a secret anywhere, and the
address of an upload is one. `request.image_url` keeps `sha256:` and the digest of the input image's file,
`request.mask_image_url` the mask's; the URL of a LoRA or ControlNet keeps its host and the last part of its
path: `example.com/.../ink.safetensors`.
"""

import importlib.metadata
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from models.job import Facts, Job
from worker.encoding.image_texts import Texts, read_texts
from worker.errors import ImageError

IMAGE_NOT_KEPT = "sha256:"
"""Begins `request.image_url` and `request.mask_image_url`."""
URL_NOT_KEPT = "/.../"
"""Between the host and the last part of a URL; no name of a file has it, so it is not taken for one."""

_NEEDS_QUOTES = re.compile(r'[,:\n"]')


def describe(model_id: str, body: Mapping[str, Any], job: Job, facts: Facts, seed: int) -> dict[str, Any]:
    """Our object for the file of the picture of `seed`; `body`, sent to `model_id`, asked for it."""
    return {
        "version": importlib.metadata.version("zturbo"),
        "model_id": model_id,
        "model": facts.model,
        "prompt": facts.prompt,
        "expanded_prompt": facts.expanded_prompt,
        "seed": seed,
        "num_inference_steps": job.num_inference_steps,
        "width": job.width,
        "height": job.height,
        **({"seed_variance": job.seed_variance} if job.seed_variance else {}),
        "strength": job.strength,
        "control": {
            "preprocess": body.get("preprocess", job.preprocess),
            "control_scale": job.control_scale,
            "control_start": job.control_start,
            "control_end": job.control_end,
            "controlnet": _public_name(facts.controlnet),
        }
        if facts.controlnet is not None
        else None,
        "loras": [
            {"name": _public_name(lora.name), "scale": lora.scale, "sha256": lora.sha256}
            for lora in facts.loras
        ],
        "request": _keepable(body, job),
    }


def software(metadata: Mapping[str, Any]) -> str:
    """What a file's Exif names as the program that wrote it."""
    return f"zturbo {metadata['version']}"


def texts(metadata: Mapping[str, Any]) -> Texts:
    """What to write into the file."""
    return {"parameters": parameters(metadata), "zturbo": json.dumps(metadata, ensure_ascii=False)}


def parameters(metadata: Mapping[str, Any]) -> str:
    """The prompt that the model read, and below it one line of settings that other tools can parse."""
    settings = {
        "Steps": metadata["num_inference_steps"],
        "Sampler": "Euler",
        "CFG scale": 1,
        "Seed": metadata["seed"],
        "Size": f"{metadata['width']}x{metadata['height']}",
        "Model": metadata["model"],
    }
    if "seed_variance" in metadata:
        settings["Seed variance"] = f"{metadata['seed_variance']:g}"
    if metadata["strength"] is not None:
        settings["Denoising strength"] = f"{metadata['strength']:g}"
    if control := metadata["control"]:
        settings["ControlNet 0"] = (
            f"Module: {control['preprocess']}, Model: {control['controlnet']}, "
            f"Weight: {control['control_scale']:g}, "
            f"Guidance Start: {control['control_start']:g}, Guidance End: {control['control_end']:g}"
        )
    if loras := metadata["loras"]:
        # Ten digits of the file's sha256 are what model sites know as its short hash.
        settings["Lora hashes"] = ", ".join(f"{lora['name']}: {lora['sha256'][:10]}" for lora in loras)
        settings["Lora scales"] = ", ".join(f"{lora['name']}: {lora['scale']:g}" for lora in loras)
    if metadata["expanded_prompt"] is not None:
        settings["Original prompt"] = metadata["prompt"]
    settings["Version"] = software(metadata)
    prompt = metadata["expanded_prompt"] or metadata["prompt"]
    return f"{prompt}\n" + ", ".join(f"{name}: {_quoted(str(value))}" for name, value in settings.items())


def read_metadata(data: bytes) -> dict[str, Any]:
    """What an image file says of its making: `parameters` (text) and `zturbo` (our object), if it has them.

    Raises `ImageError` when `data` is no PNG, JPEG or WebP, or its own object cannot be read.
    """
    found = read_texts(data)
    metadata: dict[str, Any] = {**found}
    if "zturbo" in found:
        try:
            metadata["zturbo"] = json.loads(found["zturbo"])
        except ValueError as fault:
            raise ImageError("The file's zturbo metadata is broken: it is no JSON.") from fault
        if not isinstance(metadata["zturbo"], dict):
            raise ImageError("The file's zturbo metadata is broken: it is no object.")
    return metadata


def request_body(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The request body that makes this picture again, alone, with its own seed; from `read_metadata`.

    Raises `ImageError` when the file was not made here.
    """
    try:
        made = metadata["zturbo"]
        body = {**made["request"], "seed": made["seed"]}
        if body.get("num_images", 1) > 1:
            body["num_images"] = 1
            if made["expanded_prompt"] is not None:
                # It was expanded by the first picture's seed.
                body |= {"prompt": made["expanded_prompt"], "enable_prompt_expansion": False}
        return body
    except (KeyError, TypeError) as fault:
        raise ImageError("The file does not say which request made it.") from fault


def _keepable(body: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The request body without what would open a picture or a LoRA."""
    kept = dict(body)
    for field, sha256 in (("image_url", job.image_sha256), ("mask_image_url", job.mask_sha256)):
        if body.get(field):
            kept[field] = IMAGE_NOT_KEPT + (sha256 or "unknown")
    if "loras" in body:
        kept["loras"] = [{**lora, "path": _public_name(lora["path"])} for lora in body["loras"]]
    return kept


def _public_name(reference: str) -> str:
    """How a LoRA or ControlNet was named, without what a URL may hide between its host and its last part."""
    if "://" not in reference:
        return reference
    url = urlsplit(reference)
    return f"{url.hostname}{URL_NOT_KEPT}{url.path.rpartition('/')[2]}"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if _NEEDS_QUOTES.search(value) else value
