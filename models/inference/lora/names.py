"""The names in LoRA files: which weight of the transformer a key means.

Trainers spell a module in many ways: `transformer.layers.0.attention.to_q`,
`diffusion_model.layers.0.attention.qkv`, `lora_unet_layers_0_attention_to_q`. Every spelling is flattened
(dots become underscores) and looked up in an index of the model's own names; a flat name is never taken
apart, since its underscores are ambiguous.
"""

from collections.abc import Iterable
from typing import NamedTuple

from models.inference.loading.original_names import COMFYUI_PREFIXES, diffusers_names, original_name

LAYOUTS = (
    # What a key starts with -> who writes such keys; the first that fits counts.
    *((prefix, "comfyui") for prefix in COMFYUI_PREFIXES),
    ("base_model.model.transformer.", "peft"),
    ("base_model.model.", "peft"),
    ("transformer.", "peft"),
    ("lora_unet__", "kohya"),
    ("lora_unet_", "kohya"),
    ("lora_transformer_", "kohya"),
    ("lycoris_", "lycoris"),
    ("", "peft"),
)

FACTORS = {
    # What a key ends with -> what the tensor is.
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_B.bias": "up_bias",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "alpha": "alpha",
    "lokr_w1": "w1",
    "lokr_w1_a": "w1_a",
    "lokr_w1_b": "w1_b",
    "lokr_w2": "w2",
    "lokr_w2_a": "w2_a",
    "lokr_w2_b": "w2_b",
    "hada_w1_a": "hada_w1_a",
    "hada_w1_b": "hada_w1_b",
    "hada_w2_a": "hada_w2_a",
    "hada_w2_b": "hada_w2_b",
    "diff": "diff",
    "diff_b": "diff_b",
}


class LoraKey(NamedTuple):
    """One key of a LoRA file: its writer, the module's flat name, and which tensor of it this is."""

    layout: str
    module: str
    factor: str


def read_key(key: str) -> LoraKey | None:
    """The key's parts, or None when it ends like no tensor of a LoRA."""
    plain = key.replace("default.", "")  # peft's adapter name, left in by some trainers
    factor = next((suffix for suffix in FACTORS if plain.endswith(f".{suffix}")), None)
    if factor is None:
        return None
    prefix, layout = next((prefix, layout) for prefix, layout in LAYOUTS if plain.startswith(prefix))
    module = plain.removeprefix(prefix).removesuffix(f".{factor}")
    return LoraKey(layout, flat(module), FACTORS[factor])


def flat(module: str) -> str:
    return module.replace(".", "_")


def module_index(parameters: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Every flat spelling -> the model's modules that it means: one, or q, k and v for a fused `qkv`."""
    modules = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    index: dict[str, tuple[str, ...]] = {flat(module): (module,) for module in modules}
    for module in modules:
        original = original_name(module)
        index.setdefault(flat(original), diffusers_names(original))
    return index
