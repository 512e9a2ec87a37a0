"""The bundle's model card: what it is, how it was trained, what it was measured to do, and what it cannot."""

import json
from pathlib import Path
from typing import Any, Final

from training.latents import shard_shape
from training.presets import Preset
from training.vocabulary import COLOURS, OBJECTS

_CARD: Final = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# zturbo demo model

A small model that really draws, in the layout of Z-Image-Turbo and of the same classes: for trying the
server on a laptop, and for tests that want to know whether prompt, control and LoRA do what they should. It
knows one small world and nothing else.

- **Draws** one or two of: {objects}; in {colours}; on grass, sand, stone or wood; under a clear, cloudy,
  overcast or sunset sky; small or large; left, in the middle or right; a figure stands, walks, waves,
  raises or spreads its arms, or has its hands on its hips.
- **Size**: trained at {size} x {size} pixels (`vae/config.json`: `sample_size`), and some at {shapes}. Eight
  Euler steps, shift 3, no guidance.
- **Control**: `controlnet.safetensors` in the layout of Union 1.0 and `controlnet-2.1.safetensors` in that
  of 2.1, for canny, depth and pose maps.
- **LoRAs**: `loras/blueprint.safetensors`, `loras/night.safetensors`.

## Data
Pictures, depth maps, edges, skeletons and captions are drawn by this repository's `training/` from seeds;
no picture, text or weight of anyone else's is in it. Eight combinations of colour and object, and every
seed from 1,000,000,000 on, were kept out of training for measuring.

## Training
`python -m training{options}` makes it again, stage by stage; a killed run goes on where it was. This one:

| stage | minutes | steps | last logged losses |
|---|---|---|---|
{stages}

{where}

## Measured
`python -m training.quality --check`, on prompts and control maps that training never saw, 8 steps:

{figures}

## Limits
Pictures of anything else come out as one of the things above. What it draws is toy-like and, at {size}
pixels, coarse. {limits}

## Licence
Apache-2.0, as the code that made it.
"""


def write_card(preset: Preset, folder: Path, bundle: Path, device: str, started: bool) -> None:
    """Writes README.md into the bundle from the training log in `folder`, and from figures.json where there
    is one. `started`: whether the weights of an earlier bundle were gone on from.
    """
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last: dict[str, dict[str, Any]] = {}
    for line in logged:
        last.setdefault(line["stage"], {}).update(line)
    figures = folder / "figures.json"
    gpu = device == "cuda"
    shapes = {shard_shape(index, preset.size) for index in range(preset.shards)} - {
        (preset.size, preset.size)
    }
    (bundle / "README.md").write_text(
        _CARD.format(
            objects=", ".join(OBJECTS),
            colours=", ".join(COLOURS),
            size=preset.size,
            shapes=" and ".join(f"{width} x {height}" for width, height in sorted(shapes)),
            options=f"{' --device cuda' if gpu else ''}{' --start models/demo_weights' if started else ''}",
            stages="\n".join(_stage_row(line) for line in last.values()),
            where=("On a GPU." if gpu else "On two processor cores, shared with other work.")
            + (" It went on from the weights of an earlier bundle." if started else ""),
            figures=_figure_table(figures) if figures.exists() else "Not measured yet.",
            limits=""
            if gpu
            else "It was trained for minutes on a processor; `python -m training --device cuda`\n"
            "trains a larger one.",
        )
    )


def _stage_row(line: dict[str, Any]) -> str:
    losses = [
        f"{name} {value:.3f}"
        for name, value in line.items()
        if name not in ("stage", "step", "minutes", "samples")
    ]
    return f"| {line['stage']} | {line['minutes']:.1f} | {line['step']:,} | {', '.join(losses)} |"


def _figure_table(path: Path) -> str:
    rows = [f"| {name} | {value:g} |" for name, value in json.loads(path.read_text()).items()]
    return "\n".join(["| figure | value |", "|---|---|", *rows])
