"""The reasons why a file cannot be applied as a LoRA, by its keys, in words that follow the file's name."""

import re
from collections.abc import Collection

from models.inference.lora.names import flat
from models.weights.header import Header, kind

OTHER_MODELS = (
    # Module names, flattened, that only one family has; the first that fits counts.
    ("Flux", r"single_transformer_blocks_\d|single_blocks_\d|double_blocks_\d"),
    ("Qwen-Image", r"transformer_blocks_\d+_(img|txt)_(mlp|mod)"),
    ("Qwen-Image or Stable Diffusion 3", r"transformer_blocks_\d+_attn_|joint_blocks_\d"),
    ("Wan", r"(^|_model_|_unet_|transformer_)blocks_\d+_(self_attn|cross_attn|ffn|attn1|attn2)_"),
    ("Stable Diffusion or SDXL", r"(down|up|input|output)_blocks_\d|(mid|middle)_block_"),
)
TEXT_ENCODER = re.compile(r"^(text_encoders?[._\d]|lora_te|lora_qwen3|text_model\.|conditioner\.)")
UNSUPPORTED_FACTORS = (
    ("DoRA", (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")),
    ("OFT", (".oft_blocks", ".oft_diag", ".oft_R.weight")),
    ("Tucker factors", (".lora_mid.weight", ".lokr_t2", ".hada_t1", ".hada_t2")),
)
KEYS_SHOWN = 3


def unsupported_part(keys: Collection[str]) -> str | None:
    """What in a file we cannot apply, and so refuse it whole; None when there is no such thing."""
    for what, endings in UNSUPPORTED_FACTORS:
        key = next((key for key in keys if key.replace("default.", "").endswith(endings)), None)
        if key:
            return f'holds {what} ("{key}"), which is not supported: save it as a plain LoRA or LoKr'
    key = next((key for key in keys if TEXT_ENCODER.match(key)), None)
    if key:
        return f'changes the text encoder ("{key}"), which is not supported: save its transformer part alone'
    return None


def no_match(header: Header) -> str:
    """What a file without one LoRA key of this model seems to be, and what to do about it."""
    keys = header.tensors
    match kind(header):
        case "controlnet":
            return "is a ControlNet checkpoint, not a LoRA: name it by its hub id"
        case "transformer":
            return "is a whole transformer, not a LoRA: set it as the server's model"
    for model, pattern in OTHER_MODELS:
        if any(re.search(pattern, flat(key)) for key in keys):
            return f"was made for {model}: use one made for Z-Image"
    seen = ", ".join(f'"{key}"' for key in sorted(keys)[:KEYS_SHOWN]) or "none"
    return unsupported_part(keys) or (
        f"has no key that matches a layer of this model ({len(keys)} in the file; first: {seen}): "
        "use one made for Z-Image"
    )
