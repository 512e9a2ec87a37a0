"""The bundle: trained components in the diffusers layout, bfloat16 safetensors, with a model card."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.card import write_card
from training.flow import SHIFT
from training.presets import Preset
from training.styles import STYLES

MAX_BYTES: Final = 40_000_000
CONTROLNETS: Final = {"control": "controlnet", "control21": "controlnet-2.1"}
"""What a stage calls its control branch, and what the bundle does."""
MODEL_INDEX: Final = {
    "_class_name": "ZImagePipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3Model"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "ZImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def export(
    preset: Preset, folder: Path, out: Path, device: str, started: bool,
    vae: AutoencoderKL, text: tuple[Any, Any], transformer: Any,
) -> int:  # fmt: skip
    """Writes the bundle to `out`, replacing what is there; returns its bytes. Raises ValueError when too
    large.
    """
    draft = out.with_name(f"{out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    encoder, tokenizer = text
    for name, model in {"vae": vae, "text_encoder": encoder, "transformer": transformer}.items():
        copy.deepcopy(model).cpu().to(torch.bfloat16).save_pretrained(draft / name)
        _forget_origin(draft / name / "config.json")
    tokenizer.save_pretrained(draft / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=SHIFT).save_pretrained(draft / "scheduler")
    (draft / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    for stage, name in CONTROLNETS.items():
        _save(load_file(folder / f"{stage}.safetensors"), draft / f"{name}.safetensors", torch.bfloat16)
    (draft / "loras").mkdir()
    for style in STYLES:
        _save(
            load_file(folder / f"lora-{style}.safetensors"),
            draft / "loras" / f"{style}.safetensors",
            torch.bfloat16,
        )
    write_card(preset, folder, draft, device, started)
    for path in draft.rglob("*.safetensors"):
        path.chmod(0o644)
    total = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    if total > MAX_BYTES:
        raise ValueError(f"the bundle is {total:,} bytes, and may be {MAX_BYTES:,}")
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    return total


def _forget_origin(config: Path) -> None:
    """Takes out the folder of this machine that the model was loaded from."""
    settings = json.loads(config.read_text())
    settings.pop("_name_or_path", None)
    config.write_text(json.dumps(settings, indent=2) + "\n")


def _save(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    save_file(
        {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()},
        path,
    )
