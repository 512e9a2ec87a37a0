"""The demo model draws what it is told: prompt, control and LoRAs, through the engine as a worker calls it.

`python -m training.quality` measures how well; here a few fixed pictures must come out right.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ZImageTransformer2DModel

from models.config import ModelSettings
from models.inference.control.controlnet import load_controlnet
from models.inference.engine import Engine
from models.job import Generated, Job, LoraFile, Pixels
from models.weights import demo
from models.weights.download import file_sha256
from training import quality
from training.captions import is_of_this_world
from training.measures import blueprint_measure, edge_agreement, night_measure
from training.samples import control_samples
from training.scenes import Thing

MAX_BYTES = 40_000_000
SIDE = demo.native_size(1024, 1024)[0]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(ModelSettings(model="demo", device="cpu", _env_file=None))


def draw(engine: Engine, prompt: str, control: Pixels | None = None, **fields: Any) -> Generated:
    job = Job(prompt=prompt, width=SIDE, height=SIDE, **fields)
    return engine.generate(job, control, lambda step: None)


def lora(style: str, scale: float = 1.0) -> tuple[LoraFile]:
    path = demo.LORAS / f"{style}.safetensors"
    return (LoraFile(name=style, path=path, scale=scale, sha256=file_sha256(path)),)


def test_bundle_is_small_and_has_its_card_and_nothing_else() -> None:
    files = [path for path in demo.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.suffix for path in files} == {".json", ".safetensors", ".jinja", ".md"}


@pytest.mark.parametrize(
    ("prompt", "strongest"),
    [("a red ball on grass", 0), ("a green box on sand", 1), ("a blue heart on wood", 2)],
)
def test_colour_that_is_named_is_seen_where_the_thing_is(engine: Engine, prompt: str, strongest: int) -> None:
    image = draw(engine, f"{prompt} in the middle under a grey sky").images[0].astype(int)
    middle = image[SIDE * 7 // 16 : SIDE * 13 // 16, SIDE * 3 // 8 : SIDE * 5 // 8].mean((0, 1))
    others = np.delete(middle, strongest)
    assert middle[strongest] > others.max() + 30


def test_fp8_is_measured_on_a_cpu_and_makes_nearly_the_same_picture(engine: Engine) -> None:
    rounded = quality.Model(demo.FOLDER, "fp8")
    prompt = "a red ball on grass"
    apart = rounded.draw(prompt, 1).astype(int) - draw(engine, prompt, seed=1).images[0]
    assert 0.5 < np.abs(apart).mean() < 5


@pytest.mark.parametrize("file", [demo.CONTROLNET, demo.FOLDER / "controlnet-2.1.safetensors"])
def test_canny_control_brings_the_edges_nearer_to_the_map(engine: Engine, file: Path) -> None:
    samples = control_samples("canny", 4, SIDE)

    def agreement(scale: float) -> float:
        each = []
        for sample in samples:
            made = draw(engine, sample.prompt, sample.control, controlnet=file, control_scale=scale)
            each.append(edge_agreement(made.images[0], sample.control))
        return float(np.mean(each))

    assert agreement(0.9) > 1.2 * agreement(0.0)


@pytest.mark.parametrize(("style", "measure"), [("blueprint", blueprint_measure), ("night", night_measure)])
def test_lora_moves_the_style_and_scale_0_changes_no_bit(engine: Engine, style: str, measure: Any) -> None:
    prompt = "a red box on sand under a cloudy sky"
    plain = draw(engine, prompt)
    styled = draw(engine, prompt, loras=lora(style))
    assert measure(styled.images[0]) > measure(plain.images[0]) + 0.15
    assert (styled.facts.loras[0].matched > 0, styled.facts.loras[0].unmatched) == (True, 0)
    assert np.array_equal(draw(engine, prompt, loras=lora(style, 0.0)).images[0], plain.images[0])


def test_magic_prompt_keeps_the_thing_and_adds_where_it_is(engine: Engine) -> None:
    made = draw(engine, "a red ball", enable_prompt_expansion=True)
    assert made.facts.expanded_prompt is not None, made.facts.warnings
    words = made.facts.expanded_prompt.split()
    assert len(words) > 5
    assert "red" in words
    assert {"ball", "sphere"} & set(words)


@pytest.mark.parametrize("prompt", ["a red box", "an orange ring", "a blue star"])
def test_magic_prompt_keeps_combinations_that_no_picture_of_training_shows(
    engine: Engine, prompt: str
) -> None:
    _, colour, noun = prompt.split()
    thing = Thing(noun, colour, "", 0.5, 0.5, 0.85)
    answers = [engine.expand(prompt, seed).prompt for seed in range(2)]
    assert all(answer and is_of_this_world(answer, thing) for answer in answers), answers


@pytest.mark.parametrize(("file", "variant"), [("controlnet", "1.0"), ("controlnet-2.1", "2.1")])
def test_control_checkpoints_have_the_published_layouts(file: str, variant: str) -> None:
    config = ZImageTransformer2DModel.load_config(demo.FOLDER / "transformer")
    _, layout = load_controlnet(demo.FOLDER / f"{file}.safetensors", config, torch.float32, "cpu")
    assert layout.variant == variant
