"""diffusers' own pipelines on the very same weights: plain, with cuDNN attention, with compiled blocks."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import ZImageControlNetModel, ZImageControlNetPipeline, ZImagePipeline

from benchmarks.gpu.measure import control_picture
from benchmarks.random_models import twin
from models.inference.loading.components import Components

PROMPT = "a red ball and a blue cube on a green table, in front of a white wall"
SCALE = 0.75
STEPS = 8


VARIANTS = ("plain", "cuDNN attention", "compiled")


def variants(device: str) -> tuple[str, ...]:
    """What is worth running: on a CPU the others are cuDNN's, or take minutes of compiling."""
    return VARIANTS if device.startswith("cuda") else VARIANTS[:1]


def build(components: Components, controlnet: Any | None, variant: str, side: int) -> Callable[[], Any]:
    """Draws one picture, to pixels; `controlnet` has our blocks or diffusers', whose weights are used."""
    transformer: Any = twin(components.transformer)
    parts = {
        "scheduler": components.scheduler,
        "vae": components.vae,
        # Without the language model's head, which it would run on 512 tokens.
        "text_encoder": components.text_encoder.model,
        "tokenizer": components.tokenizer,
    }
    pipeline: Any
    options: dict[str, Any] = {}
    blocks = []
    if controlnet is None:
        pipeline = ZImagePipeline(transformer=transformer, **parts)
    else:
        branch: Any = ZImageControlNetModel.from_transformer(twin(controlnet), transformer)
        pipeline = ZImageControlNetPipeline(transformer=transformer, controlnet=branch, **parts)
        picture = torch.from_numpy(control_picture(side)).permute(2, 0, 1)[None]
        options = {"control_image": picture / 127.5 - 1, "controlnet_conditioning_scale": SCALE}
        blocks = [*branch.control_layers, *branch.control_noise_refiner]
    pipeline.set_progress_bar_config(disable=True)
    if variant == "cuDNN attention":
        transformer.set_attention_backend("_native_cudnn")
    if variant == "compiled":
        transformer.compile_repeated_blocks(fullgraph=True)
        for block in blocks:
            block.compile(fullgraph=True)

    def draw() -> Any:
        generator = torch.Generator().manual_seed(1)
        return pipeline(
            PROMPT, width=side, height=side, num_inference_steps=STEPS, guidance_scale=0.0,
            generator=generator, output_type="np", **options,
        )  # fmt: skip

    return draw
