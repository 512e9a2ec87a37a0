"""The parts of one model, loaded from a folder in the diffusers layout; nothing is asked of a network."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3ForCausalLM

from models.checkpoint import read_header
from models.errors import CheckpointError
from models.loading import Weights, fill, folder_files
from models.placement import Footprint


@dataclass(frozen=True)
class Components:
    """One model's parts; the control branch is not among them."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: Qwen3ForCausalLM
    transformer: ZImageTransformer2DModel
    vae: AutoencoderKL
    scheduler: FlowMatchEulerDiscreteScheduler


def load_components(folder: Path, dtype: torch.dtype, device: torch.device) -> Components:
    """Load every part with the transformer on `device`; raises `CheckpointError` naming what is wrong."""
    # float16 overflows in the autoencoder (its configuration says force_upcast).
    vae_dtype = torch.float32 if dtype == torch.float16 else dtype
    try:
        return Components(
            tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            text_encoder=Qwen3ForCausalLM.from_pretrained(
                folder / "text_encoder", dtype=dtype, local_files_only=True
            ),
            transformer=load_transformer(folder / "transformer", dtype, device),
            vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=vae_dtype, local_files_only=True),
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(
                folder / "scheduler", local_files_only=True
            ),
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"The model in {folder} cannot be loaded: {error}") from error


def load_transformer(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The transformer of a folder, cast tensor by tensor: the published one is 24.6 GB of float32."""
    config = ZImageTransformer2DModel.load_config(folder, local_files_only=True)
    with torch.device("meta"):
        model = ZImageTransformer2DModel.from_config(config)
    with Weights(folder_files(folder)) as weights:
        return fill(model, weights, dtype, device, source=str(folder))


def footprint(folder: Path, controlnet: Path | None) -> Footprint:
    """What the model in `folder` will weigh, from its files' headers and configurations alone."""
    config = json.loads((folder / "transformer" / "config.json").read_bytes())
    vae_config = json.loads((folder / "vae" / "config.json").read_bytes())
    transformer = sum(_parameters(path) for path in folder_files(folder / "transformer"))
    return Footprint(
        transformer=transformer,
        controlnet=_parameters(controlnet) if controlnet else 0,
        text_encoder=sum(_parameters(path) for path in folder_files(folder / "text_encoder")),
        vae=sum(_parameters(path) for path in folder_files(folder / "vae")),
        largest_block=transformer // config["n_layers"],
        width=config["dim"],
        vae_width=vae_config["block_out_channels"][0],
    )


def _parameters(path: Path) -> int:
    return sum(math.prod(tensor.shape) for tensor in read_header(path).tensors.values())
