"""The published model with random weights, or the same shape in small, set up as the server sets it up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from benchmarks.random_models import fill_at_random, random_controlnet, random_transformer, random_vae
from models.config import ModelSettings
from models.inference.control.controlnet import KNOWN, Layout
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.rounding import EightBits, round_matrices
from models.inference.device.loaded_model import LoadedModel
from models.inference.engine import Engine
from models.inference.loading.components import Components
from models.inference.loading.footprint import Footprint
from models.inference.loading.tensors import Shapes
from models.job import LoraFile
from models.weights import demo

LORAS = 3
LORA_RANK = 32
LORA_MODULES = (
    *(f"attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"feed_forward.{name}" for name in ("w1", "w2", "w3")),
)


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    transformer: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    vae: tuple[int, ...]
    layouts: tuple[Layout, ...]
    sizes: tuple[int, ...]
    """Sides of the square pictures, in pixels."""
    product: int
    """Side of the matrices whose product stands for the device's peak."""


FULL = Scale(
    transformer={},
    text_encoder={
        "vocab_size": 151_936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
    vae=(128, 256, 512, 512),
    layouts=tuple(layout for layout in KNOWN if layout.variant in ("1.0", "2.1")),
    sizes=(512, 1024, 1536),
    product=8192,
)  # fmt: skip
TINY = Scale(
    transformer={
        "dim": 64, "n_layers": 4, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32, "axes_dims": [8, 12, 12],
    },
    text_encoder={
        "vocab_size": 2048, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    },
    vae=(8, 8, 8, 8),
    layouts=(
        Layout("1.0", (0, 2), 16, None),
        Layout("2.1", (0, 2), 33, "control_noise_refiner"),
    ),
    sizes=(64, 96),
    product=256,
)  # fmt: skip


def build_components(scale: Scale, dtype: torch.dtype, device: str, home: str | None = None) -> Components:
    """Every part, drawn on `device`, the large ones kept at `home`; the tokenizer is the demo model's."""
    with init_empty_weights(include_buffers=False):
        text_encoder: Any = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=True, **scale.text_encoder))
    fill_at_random(text_encoder, dtype, device, home).tie_weights()
    return Components(
        tokenizer=AutoTokenizer.from_pretrained(demo.FOLDER / "tokenizer"),
        text_encoder=text_encoder,
        transformer=use_own_blocks(random_transformer(scale.transformer, dtype, device, home)),
        vae=random_vae(scale.vae, dtype, device),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def caption_tokens(tokenizer: Any, prompt: str) -> int:
    """Tokens of a prompt with what its template puts around it."""
    asked = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return len(tokenizer(text)["input_ids"])


def prompt_of(tokenizer: Any, tokens: int) -> str:
    """The shortest prompt of so many tokens, or a few more."""
    words: list[str] = []
    while caption_tokens(tokenizer, " ".join(words)) < tokens:
        words.append("red")
    return " ".join(words)


class Held:
    """A transformer's weights in host memory, as a `models.inference.loading.tensors.Source`."""

    mapped = False

    def __init__(self, transformer: Any) -> None:
        self._tensors: dict[str, Tensor] = {
            name: weight.detach().cpu() for name, weight in transformer.named_parameters()
        }

    def shapes(self) -> Shapes:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


def rounded(components: Components, eight_bits: EightBits) -> Components:
    """The same in 8 bits, with the weights kept that LoRAs are merged into."""
    stored = Held(components.transformer)
    round_blocks(components.transformer, eight_bits)
    round_matrices(components.text_encoder.model, eight_bits)
    return replace(components, stored=stored)


def write_controlnets(scale: Scale, components: Components, folder: Path) -> dict[str, Path]:
    """A checkpoint of each layout, by its name."""
    paths = {}
    weight = components.transformer.x_pad_token
    for layout in scale.layouts:
        model = random_controlnet(layout, components.transformer.config, weight.dtype, str(weight.device))
        paths[layout.variant] = folder / f"union-{layout.variant}.safetensors"
        save_file(model.state_dict(), paths[layout.variant])
    return paths


def write_loras(components: Components, folder: Path) -> tuple[LoraFile, ...]:
    """LoRAs on every linear layer of every block."""
    generator = torch.Generator().manual_seed(3)
    loras = []
    for number in range(LORAS):
        tensors = {}
        for name, parameter in components.transformer.named_parameters():
            module = name.removesuffix(".weight")
            if module.endswith(LORA_MODULES):
                rows, columns = parameter.shape
                down = torch.randn(LORA_RANK, columns, generator=generator) * columns**-0.5
                up = torch.randn(rows, LORA_RANK, generator=generator) * 0.01
                tensors[f"transformer.{module}.lora_A.weight"] = down.to(parameter.dtype)
                tensors[f"transformer.{module}.lora_B.weight"] = up.to(parameter.dtype)
        path = folder / f"lora-{number}.safetensors"
        save_file(tensors, path)
        loras.append(LoraFile(name=path.name, path=path, scale=1.0, sha256=f"{number:064}"))
    return tuple(loras)


def build_engine(model: LoadedModel, folder: Path) -> Engine:
    """The server's engine; it keeps nothing for requests that come again, so that each is measured whole."""
    return Engine("random", model, ModelSettings(data_dir=folder, reuse_bytes=0, _env_file=None))


def footprint(components: Components, controlnet: Path) -> Footprint:
    """What the parts weigh, as the server counts it from files."""
    counts = {
        name: sum(parameter.numel() for parameter in getattr(components, name).parameters())
        for name in ("transformer", "text_encoder", "vae")
    }
    config = components.transformer.config
    size = components.transformer.x_pad_token.element_size()
    return Footprint(
        controlnet=controlnet.stat().st_size // size,
        largest_block=counts["transformer"] // config["n_layers"],
        width=config["dim"],
        vae_width=components.vae.config["block_out_channels"][0],
        **counts,
    )
