"""Magic Prompt: the text encoder's last layer, trained further to expand brief prompts.

The transformer reads what comes out of the layer before, so that this changes no embedding, and may see the
combinations that are kept from pictures: without them it answered "a red box" with a red cone.
"""

from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from training.presets import Preset
from training.progress import Progress, learning_rate, set_learning_rate
from training.runtime import Runtime
from training.text_encoder import expansions, language_loss

_PEAK: Final = 3e-3
_BATCH: Final = 16
_POOL: Final = 8000


def train_expansion(
    preset: Preset,
    folder: Path,
    runtime: Runtime,
    encoder: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Changes `encoder` in place; what was trained is loaded when it is there already."""
    finished = folder / "expansion.safetensors"
    last = nn.ModuleDict({"layer": encoder.model.layers[-1], "norm": encoder.model.norm})
    if finished.exists():
        last.load_state_dict(load_file(finished))
        return
    torch.manual_seed(7)
    encoder.requires_grad_(False)
    last.requires_grad_(True)
    optimizer = torch.optim.AdamW(last.parameters(), _PEAK, betas=(0.9, 0.98), weight_decay=0.01)
    state: dict[str, Any] = {"last": last, "optimizer": optimizer}
    progress = Progress(folder, "expansion", preset.minutes["expansion"], state)
    tokens, starts, lengths = (
        part.to(runtime.device) for part in expansions(tokenizer, range(_POOL), every_pair=True)
    )
    for fraction in progress.steps():
        rows = torch.randint(len(tokens), (_BATCH,), device=runtime.device)
        ids = tokens[rows, : int(lengths[rows].max())]
        with runtime.autocast():
            output = encoder(input_ids=ids, use_cache=False)
        loss = language_loss(output.logits, ids, starts[rows], lengths[rows])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(last.parameters(), 1.0)
        set_learning_rate(optimizer, learning_rate(fraction, _PEAK, progress.step, warm_up=50))
        optimizer.step()
        optimizer.zero_grad()
        progress.record(loss=loss.detach())
    encoder.requires_grad_(True)
    save_file({name: value.contiguous() for name, value in last.state_dict().items()}, finished)
