"""Whether the demo model does what it is told, measured through the server's own engine on scenes it never
saw.

    python -m training.quality --check

prints each figure beside its goal, writes them as JSON, as a row of results/demo_quality.jsonl and a sheet of
samples as PNG, and with `--check` exits 1 when one falls short. A judge network trained on renders
(training/judge.py) recognises objects, depth and joints.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.run import write_row
from models.config import ModelSettings
from models.inference.device.loaded_model import LoadedModel
from models.inference.device.placement import Placement
from models.inference.engine import Engine
from models.inference.loading.components import load_components
from models.inference.loading.copies import Copies
from models.job import Job, LoraFile, Pixels, Start
from models.weights import demo
from models.weights.download import file_sha256
from training import judge as judging
from training.captions import brief_caption, is_of_this_world
from training.maps import CONTROLS, Control
from training.measures import (
    blueprint_measure,
    depth_agreement,
    edge_agreement,
    joints_found,
    night_measure,
    outline_gradient,
)  # fmt: skip
from training.render import render
from training.samples import LORA_PROMPTS, Sample, control_samples, prompt_samples, write_sheet
from training.vocabulary import COLOURS, OBJECTS

JUDGE: Final = Path(__file__).parent / "judge.safetensors"
SCALES: Final = (0.0, 0.3, 0.6, 0.9)
STRENGTHS: Final = (0.25, 0.5, 0.75, 1.0)
STYLES: Final = {"blueprint": blueprint_measure, "night": night_measure}
AGREEMENTS: Final[dict[Control, float]] = {"canny": 0.65, "depth": 0.88, "pose": 0.65}
"""The least at the largest of SCALES."""
TIMED_RUNS: Final = 5


@dataclass
class Figures:
    """What was measured, and which goals were missed."""

    values: dict[str, float] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, *, least: float | None = None, most: float | None = None) -> None:
        met = (least is None or value >= least) and (most is None or value <= most)
        goal = (
            f"at least {least:.3g}"
            if least is not None
            else f"at most {most:.3g}"
            if most is not None
            else ""
        )
        self.values[name] = round(value, 4)
        if not met:
            self.missed.append(name)
        print(
            f"{name:<44}{value:>9.3f}  {goal:<16}{'' if not goal else 'met' if met else 'MISSED'}", flush=True
        )


class Model:
    """The bundle in an engine."""

    def __init__(self, bundle: Path, quantization: Literal["off", "int8", "fp8"] = "off") -> None:
        self.bundle = bundle
        self.settings = ModelSettings(
            model=str(bundle),
            controlnet=str(bundle / "controlnet.safetensors"),
            device="cpu",
            dtype="float32" if quantization == "off" else "auto",
            quantization=quantization,
        )
        self.engine = self.load()
        self.size = int(json.loads((bundle / "vae" / "config.json").read_text())["sample_size"])

    def load(self) -> Engine:
        """Load the bundle as the server does.

        A server on a CPU refuses fp8: the parts are loaded here with the types that they have on a GPU.
        """
        if self.settings.quantization != "fp8":
            return Engine.load(self.settings)
        copies = Copies(self.settings.data_dir / "cache")
        components = load_components(
            self.bundle, torch.bfloat16, torch.device("cpu"), copies, eight_bits="fp8"
        )
        placement = Placement("cpu", "bfloat16", "resident", eight_bits="fp8")
        model = LoadedModel(components, placement, self.bundle / "controlnet.safetensors", copies)
        return Engine(self.bundle.name, model, self.settings)

    def draw(
        self, prompt: str, seed: int, control: Pixels | None = None, scale: float = 0.0,
        controlnet: str = "controlnet", style: str | None = None, style_scale: float = 1.0,
        start: Start | None = None, strength: float | None = None,
    ) -> Pixels:  # fmt: skip
        loras: tuple[LoraFile, ...] = ()
        if style is not None:
            path = self.bundle / "loras" / f"{style}.safetensors"
            loras = (LoraFile(name=style, path=path, scale=style_scale, sha256=file_sha256(path)),)
        job = Job(
            prompt=prompt, width=self.size, height=self.size, seed=seed, control_scale=scale,
            controlnet=self.bundle / f"{controlnet}.safetensors" if scale else None, loras=loras,
            strength=strength,
        )  # fmt: skip
        return self.engine.generate(job, control, lambda _: None, start).images[0]


def recognised(logits: NDArray[np.float32], samples: Sequence[Sample]) -> NDArray[np.bool_]:
    """Whether the judge sees in each picture the object that its sample's prompt names."""
    kinds = list(OBJECTS)
    named = np.array([kinds.index(sample.scene.things[0].kind) for sample in samples])
    return np.asarray(logits.argmax(1) == named)


def measure_prompts(
    model: Model, judge: judging.Verdict, samples: Sequence[Sample], figures: Figures
) -> None:
    """Colour and object by the prompt alone."""
    pictures = np.stack([model.draw(sample.prompt, sample.scene.seed) for sample in samples])
    logits, maps = judging.look(judge, pictures)
    things = [sample.scene.things[0] for sample in samples]
    kinds = recognised(logits, samples)
    colours = np.array(
        [
            list(COLOURS)[judging.dominant_colour(picture, found[0])] == thing.colour
            for picture, found, thing in zip(pictures, maps, things, strict=True)
        ]
    )
    unseen = np.array([sample.unseen_pair for sample in samples])
    figures.add("colour as named", colours.mean(), least=0.97)
    figures.add("object recognised", kinds.mean(), least=0.92)
    figures.add("colour as named, combination unseen", colours[unseen].mean())
    figures.add("object recognised, combination unseen", kinds[unseen].mean(), least=0.80)
    renders = np.stack([render(sample.scene, model.size, model.size).image for sample in samples])
    _, true_maps = judging.look(judge, renders)
    steep, true_steep = (
        np.mean([outline_gradient(*parts) for parts in zip(held, found[:, 0], strict=True)])
        for held, found in ((pictures, maps), (renders, true_maps))
    )
    figures.add("sharpness of outlines, times the renderer's", float(steep / true_steep), least=0.6)


def measure_rounding(
    model: Model, judge: judging.Verdict, samples: Sequence[Sample], figures: Figures
) -> None:
    """How far pictures are from those of the same model in float32, of 255, and what is named less often."""
    whole = Model(model.bundle)
    measure_prompts(whole, judge, samples, exact := Figures())
    for verdict in ("colour as named", "object recognised"):
        figures.add(f"{verdict}, less than float32's", exact.values[verdict] - figures.values[verdict])
    apart = [
        np.abs(
            model.draw(sample.prompt, sample.scene.seed).astype(int)
            - whole.draw(sample.prompt, sample.scene.seed)
        ).mean()
        for sample in samples
    ]
    figures.add("pixels from float32's, mean", float(np.mean(apart)))
    figures.add("pixels from float32's, mean of the worst", float(np.max(apart)))


def agreement(
    control: Control, sample: Sample, picture: NDArray[np.uint8], found: NDArray[np.float32]
) -> float:
    match control:
        case "canny":
            return edge_agreement(picture, sample.control)
        case "depth":
            return depth_agreement(found, sample.control)
        case "pose":
            return joints_found(found, sample.joints)


def measure_control(model: Model, judge: judging.Verdict, count: int, figures: Figures) -> None:
    """Each preset's agreement at each control scale; the noise is the same at all of them."""
    for control in CONTROLS:
        samples = control_samples(control, count, model.size)

        def measured(scale: float, net: str, kind: Control = control, held: list[Sample] = samples) -> float:
            pictures = np.stack([model.draw(s.prompt, s.scene.seed, s.control, scale, net) for s in held])
            _, maps = judging.look(judge, pictures)
            each = [agreement(kind, *parts) for parts in zip(held, pictures, maps, strict=True)]
            return float(np.mean(each))

        values = [measured(scale, "controlnet") for scale in SCALES]
        for scale, value in zip(SCALES[:-1], values[:-1], strict=True):
            figures.add(f"{control} agreement at control_scale {scale}", value)
        figures.add(
            f"{control} agreement at control_scale {SCALES[-1]}", values[-1], least=AGREEMENTS[control]
        )
        figures.add(f"{control} agreement, times uncontrolled", values[-1] / max(values[0], 1e-6), least=2)
        figures.add(f"{control} agreement, least rise by scale", float(np.diff(values).min()), least=0)
        newer = measured(SCALES[-1], "controlnet-2.1")
        figures.add(f"{control} agreement, times uncontrolled, 2.1", newer / max(values[0], 1e-6), least=2)


def measure_loras(model: Model, judge: judging.Verdict, samples: Sequence[Sample], figures: Figures) -> None:
    """How many deviations of plain pictures each LoRA moves its style, and whether the object is still there;
    scale 0 must change no bit.
    """
    plain = [model.draw(prompt, seed) for seed, prompt in enumerate(LORA_PROMPTS)]
    for style, measure in STYLES.items():
        before = np.array([measure(picture) for picture in plain])
        styled = [model.draw(prompt, seed, style=style) for seed, prompt in enumerate(LORA_PROMPTS)]
        after = np.array([measure(picture) for picture in styled])
        figures.add(f"{style} LoRA, deviations moved", (after - before).mean() / before.std(), least=2)
        kept = [model.draw(sample.prompt, sample.scene.seed, style=style) for sample in samples]
        logits, _ = judging.look(judge, np.stack(kept))
        figures.add(f"{style} LoRA, object recognised", recognised(logits, samples).mean(), least=0.85)
        same = model.draw(LORA_PROMPTS[0], 0, style=style, style_scale=0.0)
        figures.add(f"{style} LoRA at scale 0, pixels changed", float((same != plain[0]).sum()), most=0)


def measure_start(model: Model, judge: judging.Verdict, samples: Sequence[Sample], figures: Figures) -> None:
    """How far pictures go from the image that they start from, by strength, and what inpainting puts into a
    hole where another object was; outside the hole no bit may change.
    """
    size = model.size
    kinds = list(OBJECTS)
    others, holes = [], []
    for sample in samples:
        thing = sample.scene.things[0]
        other = replace(thing, kind=kinds[(kinds.index(thing.kind) + 3) % 7], joints=None, pose="")
        rendering = render(replace(sample.scene, things=(other,)), size, size)
        others.append(rendering.image)
        reach = np.ones((size // 8, size // 8), np.uint8)
        holes.append(np.asarray(cv2.dilate(rendering.masks[0].astype(np.uint8), reach)) > 0)
    gone = []
    for strength in STRENGTHS:
        made = [
            model.draw(sample.prompt, sample.scene.seed, start=Start(other), strength=strength)
            for sample, other in zip(samples, others, strict=True)
        ]
        gone.append(float(np.abs(np.stack(made).astype(np.float32) - np.stack(others)).mean()))
        figures.add(f"image to image, way gone at strength {strength}", gone[-1] / 255)
    figures.add("image to image, least rise by strength", float(np.diff(gone).min()) / 255, least=0)
    filled = [
        model.draw(sample.prompt, sample.scene.seed, start=Start(other, hole), strength=1.0)
        for sample, other, hole in zip(samples, others, holes, strict=True)
    ]
    logits, _ = judging.look(judge, np.stack(filled))
    figures.add("inpainting, object recognised", recognised(logits, samples).mean())
    changed = [
        int((picture != other)[~hole].sum())
        for picture, other, hole in zip(filled, others, holes, strict=True)
    ]
    figures.add("inpainting, pixels changed outside the mask", float(sum(changed)), most=0)


def measure_expansion(model: Model, samples: Sequence[Sample], figures: Figures) -> None:
    """Whether Magic Prompt answers a few words with a sentence of the world that the model knows."""
    told = []
    for sample in samples:
        brief = brief_caption(sample.scene, np.random.default_rng((sample.scene.seed, 9)))
        answer = model.engine.expand(brief, sample.scene.seed).prompt
        told.append(answer is not None and is_of_this_world(answer, sample.scene.things[0]))
    figures.add("Magic Prompt, answers of this world", float(np.mean(told)), least=1)


def measure_time(model: Model, figures: Figures) -> None:
    """Seconds to load, library imports aside, and for one controlled picture."""
    start = time.perf_counter()
    model.load()
    figures.add("seconds to load the model", time.perf_counter() - start, most=3)
    sample = control_samples("canny", 1, model.size)[0]
    runs = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        model.draw(sample.prompt, 0, sample.control, 0.9)
        runs.append(time.perf_counter() - start)
    figures.add("seconds for a picture with control", float(np.median(runs)), most=2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.quality", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=demo.FOLDER, help="folder of the demo model")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="the network that measures")
    parser.add_argument("--count", type=int, default=100, help="prompts, and control maps in all")
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts/demo-quality"), help="figures.json, sheet.png"
    )
    parser.add_argument("--quantization", default="off", choices=("off", "int8", "fp8"))
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure misses its goal")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    model = Model(arguments.bundle, arguments.quantization)
    judge = judging.load_judge(arguments.judge)
    figures = Figures()
    measure_time(model, figures)
    samples = prompt_samples(arguments.count)
    measure_prompts(model, judge, samples, figures)
    if arguments.quantization != "off":
        measure_rounding(model, judge, samples, figures)
    measure_control(model, judge, max(1, arguments.count // len(CONTROLS)), figures)
    measure_loras(model, judge, samples[: arguments.count // 2], figures)
    measure_expansion(model, samples[: arguments.count // 2], figures)
    measure_start(model, judge, samples[: arguments.count // 4], figures)
    (arguments.out / "figures.json").write_text(json.dumps(figures.values, indent=2) + "\n")
    write_sheet(arguments.out / "sheet.png", model)
    write_row("demo_quality.jsonl", {"quantization": arguments.quantization} | figures.values)
    print(f"{len(figures.missed)} of the goals missed" if figures.missed else "every goal met")
    if arguments.check and figures.missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
