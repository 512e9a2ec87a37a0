"""The published layout at its published size with random weights, for measuring what the real ones take.

The configurations are the published ones; tokenizer and scheduler are the demo's. The transformer is written
in bfloat16, as the server's own 16-bit copy of the float32 original is.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.random_models import PUBLISHED, SEED, STD
from models.disk import check_room
from models.inference.control.controlnet import KNOWN, empty_controlnet
from models.inference.loading.original_names import original_name
from models.weights.demo import FOLDER as DEMO
from models.weights.header import header_bytes
from training.export import MODEL_INDEX

UNION = "union.safetensors"
STYLE = "style.safetensors"
RANK = 32
SHARDS = 3
POOL = 2**24
"""Values that are drawn; every tensor is cut out of them at a place of its own."""

VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "force_upcast": True,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": True,
}

Shapes = dict[str, tuple[int, ...]]
Files = dict[str, Shapes]
"""Tensors by the paths of their files below a folder."""
OnBytes = Callable[[int, int], None]
"""Told the bytes that are written and those of all files."""


def write_all(folder: Path, union: str, on_bytes: OnBytes) -> None:
    """Writes model, ControlNet-Union `union` (1.0, 2.0, 2.1 or 2.1-lite) and a LoRA of rank 32 into `folder`.

    Raises DiskFull before anything is written. What is there already, whole and of this size, stays.
    """
    files = dict(_files(union))
    write_files(folder, files, on_bytes)
    _write_configurations(folder / "model")
    _write_indexes(folder, files)


def write_files(folder: Path, files: Files, on_bytes: OnBytes) -> None:
    """Writes safetensors files of these tensors by their paths below `folder`, as `write_all` says."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {path: 2 * sum(_elements(shape) for shape in shapes.values()) for path, shapes in files.items()}
    missing = {path for path in files if not _is_whole(folder / path, sizes[path])}
    check_room(folder, sum(sizes[path] for path in missing), "this machine")
    generator = torch.Generator().manual_seed(SEED)
    pool = torch.empty(POOL, dtype=torch.bfloat16).normal_(std=STD, generator=generator)
    done, total = 0, sum(sizes.values())
    for path, shapes in files.items():
        if path in missing:
            for written in _write(folder / path, shapes, pool, generator):
                on_bytes(done + written, total)
        done += sizes[path]
        on_bytes(done, total)


def files_by_authors_names() -> Files:
    """Transformer and text encoder, one file each; the transformer by its authors' names."""
    with torch.device("meta"):
        transformer = _shapes(ZImageTransformer2DModel(**PUBLISHED))
    named: Shapes = {}
    for name, shape in transformer.items():
        # Query, key and value are rows of one matrix there.
        original = original_name(name)
        rows = named[original][0] if original in named else 0
        named[original] = (rows + shape[0], *shape[1:])
    return {"transformer.safetensors": named, "text_encoder.safetensors": _text_encoder()}


def _files(union: str) -> Iterator[tuple[str, Shapes]]:
    """Each file's path below the folder and its tensors, all from models without memory."""
    with torch.device("meta"):
        transformer = ZImageTransformer2DModel(**PUBLISHED)
        vae = AutoencoderKL(**VAE)
    yield from _sharded("model/transformer/diffusion_pytorch_model", _shapes(transformer))
    yield from _sharded("model/text_encoder/model", _text_encoder())
    yield "model/vae/diffusion_pytorch_model.safetensors", _shapes(vae)
    (layout,) = (known for known in KNOWN if known.variant == union)
    yield f"loras/{UNION}", _shapes(empty_controlnet(layout, transformer.config))
    yield f"loras/{STYLE}", dict(_lora(_shapes(transformer)))


def _text_encoder() -> Shapes:
    with torch.device("meta"):
        model = Qwen3ForCausalLM(Qwen3Config(**TEXT_ENCODER))
    # Its last matrix is the first.
    return {name: shape for name, shape in _shapes(model).items() if name != "lm_head.weight"}


def _lora(transformer: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """On every matrix of the layers, by peft's names."""
    for name, shape in transformer.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and len(shape) == 2 and name.startswith("layers.") and "adaLN" not in name:
            yield f"transformer.{module}.lora_A.weight", (RANK, shape[1])
            yield f"transformer.{module}.lora_B.weight", (shape[0], RANK)


def _shapes(model: torch.nn.Module) -> Shapes:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _sharded(stem: str, shapes: Shapes) -> Iterator[tuple[str, Shapes]]:
    each = sum(map(_elements, shapes.values())) / SHARDS
    shards: list[Shapes] = [{} for _ in range(SHARDS)]
    so_far = 0
    for name, shape in shapes.items():
        shards[min(SHARDS - 1, int(so_far / each))][name] = shape
        so_far += _elements(shape)
    for number, shard in enumerate(shards, 1):
        yield f"{stem}-{number:05}-of-{SHARDS:05}.safetensors", shard


def _write_configurations(model: Path) -> None:
    with torch.device("meta"):
        ZImageTransformer2DModel(**PUBLISHED).save_config(model / "transformer")
        AutoencoderKL(**VAE).save_config(model / "vae")
    Qwen3Config(**TEXT_ENCODER, architectures=["Qwen3ForCausalLM"], dtype="bfloat16").save_pretrained(
        model / "text_encoder"
    )
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(DEMO / part, model / part, dirs_exist_ok=True)
    (model / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))


def _write_indexes(folder: Path, files: Files) -> None:
    """Beside the shards of a component, the file that says which holds what."""
    maps: dict[str, dict[str, str]] = {}
    for path, shapes in files.items():
        stem, shard, _ = path.rpartition("-of-")
        if shard:
            index = f"{stem.rpartition('-')[0]}.safetensors.index.json"
            maps.setdefault(index, {}).update(dict.fromkeys(shapes, Path(path).name))
    for index, names in maps.items():
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": names}))


def _write(path: Path, shapes: Shapes, pool: torch.Tensor, generator: torch.Generator) -> Iterator[int]:
    """Yields the bytes so far. Norms are one, the rest is cut out of the pool; renamed when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    done = 0
    with draft.open("wb") as file:
        file.write(header_bytes({name: ("BF16", shape) for name, shape in shapes.items()}))
        for name, shape in shapes.items():
            left = _elements(shape)
            while left:
                start = int(torch.randint(POOL // 2, (1,), generator=generator))
                piece = pool[start : start + min(left, POOL // 2)]
                if "norm" in name and name.endswith("weight"):
                    piece = torch.ones_like(piece)
                file.write(piece.view(torch.uint8).numpy().data)
                left -= len(piece)
                done += 2 * len(piece)
                yield done
    draft.rename(path)


def _is_whole(path: Path, size: int) -> bool:
    """The size alone says it: nobody but this program writes here."""
    return path.is_file() and path.stat().st_size > size


def _elements(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
