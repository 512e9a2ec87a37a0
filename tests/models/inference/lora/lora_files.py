"""LoRA files of every published format, written from one known change to a tiny transformer."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ZImageTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor

from models.job import LoraFile

RANK = 4
SCALE = 0.5
"""alpha / rank of the known change."""

Tensors = dict[str, Tensor]


def tiny_transformer(dtype: torch.dtype = torch.float32) -> ZImageTransformer2DModel:
    """The model's own class, small; two calls give equal weights."""
    model = ZImageTransformer2DModel(
        dim=64, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32,
        axes_dims=[8, 12, 12], axes_lens=[256, 64, 64],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.1 + float("norm" in name)
    return model.to(dtype).eval().requires_grad_(False)


def run(model: ZImageTransformer2DModel) -> Tensor:
    """The model's output for a fixed latent, caption and time; shape (16, 1, 8, 8), float32."""
    generator = torch.Generator().manual_seed(2)
    dtype = model.dtype
    latent = torch.randn(16, 1, 8, 8, generator=generator).to(dtype)
    caption = torch.randn(7, 32, generator=generator).to(dtype)
    with torch.no_grad():
        return model([latent], torch.tensor([0.3], dtype=dtype), [caption])[0][0].float()


def linears(model: ZImageTransformer2DModel) -> dict[str, tuple[int, int]]:
    """Name -> (rows, columns) of every linear layer's weight."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


@dataclass(frozen=True)
class Change:
    """A low-rank change: module -> (down, up), each module by `SCALE` times up @ down."""

    pairs: Mapping[str, tuple[Tensor, Tensor]]

    def dense(self) -> Tensors:
        return {f"{module}.weight": SCALE * (up @ down) for module, (down, up) in self.pairs.items()}


def grid(generator: torch.Generator, *shape: int) -> Tensor:
    """Random multiples of 1/256 up to 1/8: exact in every float type, so a file's type changes nothing."""
    return torch.randint(-32, 33, shape, generator=generator) / 256


def known_change(seed: int = 3) -> Change:
    generator = torch.Generator().manual_seed(seed)
    return Change(
        {
            module: (grid(generator, RANK, columns), grid(generator, rows, RANK))
            for module, (rows, columns) in linears(tiny_transformer()).items()
        }
    )


def merged(model: ZImageTransformer2DModel, dense: Mapping[str, Tensor], scale: float = 1.0) -> Tensor:
    """What `model` gives with the change added to its weights by hand. Leaves the model changed."""
    parameters = dict(model.named_parameters())
    for name, change in dense.items():
        parameters[name].data = (parameters[name].data.float() + scale * change).to(parameters[name].dtype)
    return run(model)


def write(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, scale: float = 1.0
) -> LoraFile:
    """A LoRA file on disk, as the engine is handed it."""
    # safetensors refuses tensors that share memory, as two spellings of one factor do here.
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, path, metadata)
    return LoraFile(
        name=path.stem, path=path, scale=scale, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )


def original(module: str) -> str:
    """The module's name in the authors' own layout."""
    for ours, theirs in (
        ("all_x_embedder.2-1", "x_embedder"),
        ("all_final_layer.2-1", "final_layer"),
        ("attention.to_out.0", "attention.out"),
    ):
        module = module.replace(ours, theirs)
    return module


def fused(change: Change) -> dict[str, tuple[Tensor, Tensor]]:
    """The same change with q, k and v as one module of three times the rank, in the authors' own names."""
    pairs = {}
    for module, pair in change.pairs.items():
        if module.endswith("to_q"):
            attention = module.removesuffix(".to_q")
            parts = [change.pairs[f"{attention}.to_{part}"] for part in "qkv"]
            pairs[f"{attention}.qkv"] = (
                torch.cat([down for down, _ in parts]),
                torch.block_diag(*[up for _, up in parts]),
            )
        elif not module.endswith(("to_k", "to_v")):
            pairs[original(module)] = pair
    return pairs


def lora_tensors(
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    name: Callable[[str], str],
    down: str = "lora_A.weight",
    up: str = "lora_B.weight",
    alpha: bool = True,
) -> Tensors:
    """Keys `{name(module)}.{down}` and so on; without alpha the scale is in the up factor."""
    tensors = {}
    for module, (a, b) in pairs.items():
        tensors[f"{name(module)}.{down}"] = a
        tensors[f"{name(module)}.{up}"] = b if alpha else b * SCALE
        if alpha:
            tensors[f"{name(module)}.alpha"] = torch.tensor(SCALE * len(a))
    return tensors


def peft_metadata(**fields: object) -> dict[str, str]:
    """A configuration as diffusers' `save_lora_weights` writes it."""
    stated = {f"transformer.{key}": value for key, value in fields.items()}
    return {"lora_adapter_metadata": json.dumps(stated)}
