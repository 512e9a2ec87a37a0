"""The pieces of code that compiled blocks need for all sizes, captions and control branches, on a CPU."""

from itertools import product
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks.gpu.models import TINY
from benchmarks.random_models import random_controlnet, random_transformer
from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.compilation import compile_blocks, warm_up
from models.inference.denoise.transformer import Control, condition, control_tokens, predict

SIZES = ((48, 64), (32, 96), (64, 64))
"""Heights and widths of latents."""
CAPTIONS = (20, 60, 200, 500)
"""Tokens."""


@torch.no_grad()
def count_graphs() -> int:
    """Code is traced and not generated: how often is what counts."""
    torch.compiler.set_default_backend("eager")
    counters.clear()
    try:
        transformer: Any = use_own_blocks(random_transformer(TINY.transformer, torch.float32, "cpu"))
        branches: list[Any] = [
            use_own_blocks(random_controlnet(layout, transformer.config, torch.float32, "cpu"))
            for layout in TINY.layouts
        ]
        for model in (transformer, *branches):
            compile_blocks(model, compiled=True)
        warm_up(transformer, branches[0], torch.device("cpu"))
        torch.compiler.set_stance("default")
        for (height, width), caption, branch in product(SIZES, CAPTIONS, (None, *branches)):
            latents = torch.zeros(1, transformer.in_channels, height, width)
            embeddings = torch.zeros(caption, transformer.config.cap_feat_dim)
            conditioning = condition(transformer, embeddings, height, width)
            control = None
            if branch is not None:
                control = Control(branch, control_tokens(transformer, branch, latents), 1.0)
            predict(transformer, conditioning, latents, 0.0, control)
        return int(counters["stats"]["unique_graphs"])
    finally:
        torch.compiler.set_default_backend("inductor")
        torch.compiler.set_stance("default")
        torch._dynamo.reset()
