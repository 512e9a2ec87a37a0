"""The stage that trains the two style LoRAs, on styled pictures with captions that do not speak of the
style.
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from training import flow
from training.captions import caption
from training.flow import pad_captions
from training.latents import encode_pictures, fit_prompts
from training.pictures import in_parallel
from training.presets import Preset
from training.progress import Progress, learning_rate
from training.render import render
from training.runtime import Runtime
from training.scenes import Scene, sample_scene
from training.styles import STYLES, Style, stylize
from training.text_encoder import embed
from training.train_base import guided_target, noised

_RANK: Final = 8
_TARGETS: Final = ["to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3", "all_final_layer.2-1.linear"]
_PEAK: Final = 1e-3
_FIRST_SEED: Final = 700_000_000


def train_loras(
    preset: Preset, folder: Path, runtime: Runtime, transformer: ZImageTransformer2DModel,
    base: ZImageTransformer2DModel, vae: AutoencoderKL, encoder: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
) -> None:  # fmt: skip
    """Writes `lora-STYLE.safetensors` of each style into `folder`, where it is not there already."""
    for style in STYLES:
        if not (folder / f"lora-{style}.safetensors").exists():
            _train(style, preset, folder, runtime, transformer, base, vae, encoder, tokenizer)


def _styled(scene: Scene, style: Style, size: int) -> NDArray[np.uint8]:
    return stylize(render(scene, size, size), style)


def _train(
    style: Style, preset: Preset, folder: Path, runtime: Runtime, guided: Any,
    base: ZImageTransformer2DModel, vae: AutoencoderKL, encoder: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
) -> None:  # fmt: skip
    torch.manual_seed(5)
    scenes = [sample_scene(_FIRST_SEED + at) for at in range(preset.styled)]
    draw = partial(_styled, style=style, size=preset.size)
    pixels = np.stack(in_parallel(draw, scenes, runtime.workers))
    latents = encode_pictures(vae, pixels, runtime)
    prompts = [caption(scene, np.random.default_rng((scene.seed, 5))) for scene in scenes]
    captions = pad_captions(embed(encoder, tokenizer, fit_prompts(tokenizer, prompts)))
    # A copy: the adapter's wrappers would stay in the transformer that is exported.
    transformer = copy.deepcopy(guided).requires_grad_(False)
    transformer.add_adapter(
        LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=_TARGETS, init_lora_weights="gaussian"), style
    )
    added = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(added, betas=(0.9, 0.98), weight_decay=0.0)
    progress = Progress(
        folder, f"lora-{style}", preset.minutes["lora"], {"model": transformer, "optimizer": optimizer}
    )
    tables = flow.TableCache(transformer)
    for fraction in progress.steps():
        rows = torch.randint(len(latents), (preset.batch,))
        clean, told = latents[rows].float().to(runtime.device), captions[rows].to(runtime.device)
        noisy, sigmas, target = noised(clean)
        ropes = tables(told, clean)
        with runtime.autocast():
            wanted = guided_target(guided, base, noisy, sigmas, told, ropes, target)
            answer = flow.velocity(transformer, noisy, sigmas, told, ropes)
        loss = F.mse_loss(answer, wanted)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(fraction, _PEAK, progress.step, warm_up=10)
        optimizer.step()
        optimizer.zero_grad()
        progress.record(loss=loss.detach())
    state = get_peft_model_state_dict(transformer, adapter_name=style)
    save_file(
        {f"transformer.{name}": value.bfloat16().contiguous() for name, value in state.items()},
        folder / f"lora-{style}.safetensors",
    )
