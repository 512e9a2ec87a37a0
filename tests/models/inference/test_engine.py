"""A job in, a picture out: with a tiny untrained model, through the same door as the worker."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.config import ModelSettings
from models.errors import Cancelled, CheckpointError, ControlNetError, OutOfMemory
from models.inference.control.controlnet import Layout, empty_controlnet
from models.inference.engine import Engine
from models.job import Generated, Job, LoraFile, Pixels, Start, Step
from models.prompt.expansion import Expansion
from models.weights.header import INPAINT_CHANNELS

SIZE = 128


def settings_for(tiny_model: Path, tmp_path: Path, **options: Any) -> ModelSettings:
    """Settings of a server with this model and its ControlNet."""
    return ModelSettings(
        data_dir=tmp_path,
        model=str(tiny_model),
        controlnet=str(tiny_model / "controlnet.safetensors"),
        device="cpu",
        _env_file=None,
        **options,
    )


def generate(engine: Engine, job: Job, control: Pixels | None = None) -> Generated:
    return engine.generate(job, control, lambda step: None)


def difference(one: Generated, other: Generated) -> float:
    """Mean difference of two pictures in levels of 255."""
    return float(np.abs(one.images[0].astype(int) - other.images[0]).mean())


def write_lora(folder: Path) -> LoraFile:
    torch.manual_seed(0)
    tensors = {
        f"transformer.layers.{layer}.feed_forward.w2.lora_{part}.weight": torch.randn(shape)
        for layer in range(4)
        for part, shape in {"A": (4, 170), "B": (64, 4)}.items()
    }
    path = folder / "style.safetensors"
    save_file(tensors, path)
    return LoraFile(name="style", path=path, scale=1.0, sha256="0" * 64)


def test_picture_has_the_size_asked_for_and_says_what_made_it(
    engine: Engine, job: Job, control: Pixels
) -> None:
    picture = generate(engine, job.model_copy(update={"width": 160}), np.resize(control, (SIZE, 160, 3)))
    assert picture.images[0].shape == (SIZE, 160, 3)
    assert picture.images[0].dtype == np.uint8
    assert picture.facts.model == engine.name == "tiny"
    assert (picture.facts.seeds[0], picture.facts.prompt, picture.facts.controlnet) == (
        1,
        job.prompt,
        "its own",
    )
    assert picture.control_image is not None
    assert set(picture.facts.timings) == {"loras", "encode", "preprocess", "control", "denoise", "decode"}


def test_same_job_gives_the_same_bytes_also_in_another_engine(
    engine: Engine, job: Job, control: Pixels, tiny_model: Path, tmp_path: Path
) -> None:
    first = generate(engine, job, control)
    generate(engine, job.model_copy(update={"prompt": "something else", "seed": 9}), control)
    assert np.array_equal(generate(engine, job, control).images[0], first.images[0])
    another = Engine.load(settings_for(tiny_model, tmp_path))
    assert np.array_equal(generate(another, job, control).images[0], first.images[0])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a blue cat in the street"},
        {"seed": 2},
        {"num_inference_steps": 8},
        {"control_scale": 0.3},
        {"control_start": 0.4},
        {"control_end": 1.0},
        {"seed_variance": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_field_changes_the_picture(engine: Engine, job: Job, control: Pixels, change: dict[str, Any]) -> None:
    before, after = (generate(engine, each, control) for each in (job, job.model_copy(update=change)))
    assert difference(before, after) > 1


def test_lora_changes_the_picture_is_counted_and_leaves_no_trace(
    engine: Engine, job: Job, control: Pixels, tmp_path: Path
) -> None:
    plain = generate(engine, job, control)
    styled = generate(engine, job.model_copy(update={"loras": (write_lora(tmp_path),)}), control)
    assert difference(plain, styled) > 1
    assert [(lora.name, lora.matched, lora.unmatched) for lora in styled.facts.loras] == [("style", 8, 0)]
    assert np.array_equal(generate(engine, job, control).images[0], plain.images[0])


@pytest.mark.parametrize(
    "change",
    [
        {"control_scale": 0.0},
        {"control_start": 0.5, "control_end": 0.5},
        {"control_end": 0.2},
        {"controlnet": None},
    ],
    ids=["scale 0", "empty window", "window shorter than a step", "no ControlNet"],
)
def test_no_branch_runs_where_there_is_nothing_to_control(
    engine: Engine, job: Job, control: Pixels, change: dict[str, Any]
) -> None:
    picture = generate(engine, job.model_copy(update=change), control)
    assert picture.control_image is None
    assert picture.facts.controlnet is None
    assert "control" not in picture.facts.timings
    uncontrolled = generate(engine, job.model_copy(update={"control_scale": 0.0}))
    assert np.array_equal(picture.images[0], uncontrolled.images[0])


def test_strength_says_how_many_steps_are_done_from_the_image(
    engine: Engine, job: Job, control: Pixels
) -> None:
    steps: list[Step] = []
    start = Start(control)
    made = engine.generate(job.model_copy(update={"strength": 0.5}), None, steps.append, start)
    assert [step[:2] for step in steps] == [(1, 2), (2, 2)]
    assert (made.facts.strength, made.facts.controlnet, made.control_image) == (0.5, None, None)
    assert "image" in made.facts.timings
    back = engine.generate(job.model_copy(update={"strength": 0.0}), None, lambda step: None, start)
    assert np.array_equal(back.images[0], control)


def test_outside_the_mask_each_picture_stays_to_the_pixel_with_and_without_a_branch(
    engine: Engine, job: Job, control: Pixels, tmp_path: Path
) -> None:
    """The branch is one with channels for inpainting, of random weights that heed the mask."""
    torch.manual_seed(2)
    config = engine._model.transformer.config
    layout = Layout("2.1", (0, 2), INPAINT_CHANNELS, "control_noise_refiner")
    branch = empty_controlnet(layout, config).to_empty(device="cpu")
    weights = {name: torch.randn(tensor.shape) * 0.1 for name, tensor in branch.state_dict().items()}
    save_file(weights, tmp_path / "inpainting.safetensors")
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[13:70, 30:101] = True
    asked = job.model_copy(update={"strength": 1.0, "controlnet": tmp_path / "inpainting.safetensors"})
    made = []
    for change in ({"num_images": 2, "seed_variance": 0.2}, {"num_images": 2, "control_scale": 0.0}):
        both = engine.generate(asked.model_copy(update=change), None, lambda step: None, Start(control, mask))
        assert (both.facts.controlnet is None) == ("control_scale" in change)
        for image in both.images:
            assert np.array_equal(image[~mask], control[~mask])
        made.append(both)
        other = engine.generate(
            asked.model_copy(update=change), None, lambda step: None, Start(control, np.roll(mask, 8, 0))
        )
        assert not np.array_equal(other.images[0][40:60, 40:90], both.images[0][40:60, 40:90])
    assert difference(*made) > 1


def test_steps_are_reported_and_a_cancelled_one_is_the_last(
    engine: Engine, job: Job, control: Pixels
) -> None:
    steps: list[Step] = []

    def stop_after_two(step: Step) -> None:
        steps.append(step)
        if step.step == 2:
            raise Cancelled("stopped")

    before = generate(engine, job, control)
    with pytest.raises(Cancelled):
        engine.generate(job, control, stop_after_two)
    assert [step[:2] for step in steps] == [(1, 4), (2, 4)]
    assert all(step.seconds_left for step in steps)
    assert np.array_equal(generate(engine, job, control).images[0], before.images[0])


def test_what_stops_a_picture_between_two_steps_leaves_the_engine_ready(
    engine: Engine, job: Job, control: Pixels
) -> None:
    steps: list[int] = []
    after = 0

    def stop_after_the_first() -> None:
        nonlocal after
        after += bool(steps)
        if after == 20:
            raise Cancelled("stopped")

    before = generate(engine, job, control)
    with pytest.raises(Cancelled):
        engine.generate(job, control, lambda step: steps.append(step.step), keep_going=stop_after_the_first)
    assert steps == [1]
    assert np.array_equal(generate(engine, job, control).images[0], before.images[0])


def test_previews_come_nearer_to_the_picture_and_do_not_change_it(
    engine: Engine, job: Job, control: Pixels
) -> None:
    previews: list[Pixels] = []

    def look(step: Step) -> None:
        assert step.preview is not None
        previews.append(step.preview())

    looked = engine.generate(job, control, look)
    assert [picture.shape for picture in previews] == [(SIZE // 8, SIZE // 8, 3)] * 4
    distances = [np.abs(picture.astype(int) - previews[-1]).mean() for picture in previews]
    assert distances[0] > distances[2] > 0
    assert np.array_equal(looked.images[0], generate(engine, job, control).images[0])


def test_expansion_that_is_no_use_falls_back_to_the_prompt_with_a_warning(engine: Engine, job: Job) -> None:
    plain = generate(engine, job)
    asked = generate(engine, job.model_copy(update={"enable_prompt_expansion": True}))
    assert asked.facts.expanded_prompt is None
    assert len(asked.facts.warnings) == 1
    assert np.array_equal(asked.images[0], plain.images[0])


def test_prompt_alone_is_expanded_as_that_of_a_picture(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the untrained model writes is taken, so that there is something to compare."""
    monkeypatch.setattr(
        "models.inference.text_encoder.judge",
        lambda prompt, answer, finished: Expansion(prompt=answer or "?"),
    )
    asked = generate(engine, job.model_copy(update={"enable_prompt_expansion": True}))
    assert engine.expand(job.prompt, job.seed) == Expansion(prompt=asked.facts.expanded_prompt)
    assert engine.expand(job.prompt, job.seed + 1).prompt != asked.facts.expanded_prompt


def test_control_map_alone_is_the_one_that_guides_a_picture(
    engine: Engine, job: Job, control: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def depth(pixels: Pixels, width: int, height: int) -> Pixels:
        assert (height, width) == pixels.shape[:2]
        return 255 - pixels

    monkeypatch.setattr(engine._detectors, "depth", depth)
    guided = generate(engine, job.model_copy(update={"preprocess": "depth"}), control)
    assert guided.control_image is not None
    np.testing.assert_array_equal(engine.control_map("depth", control), guided.control_image)


def test_prompt_expanded_elsewhere_is_the_one_drawn(engine: Engine, job: Job) -> None:
    expanded = generate(engine, job.model_copy(update={"expanded_prompt": "a blue cat"}))
    direct = generate(engine, job.model_copy(update={"prompt": "a blue cat"}))
    assert np.array_equal(expanded.images[0], direct.images[0])
    assert (expanded.facts.prompt, expanded.facts.expanded_prompt) == (job.prompt, "a blue cat")


def test_another_controlnet_is_loaded_on_demand_and_a_changed_file_again(
    engine: Engine, job: Job, control: Pixels, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    weights = load_file(tiny_model / "controlnet.safetensors")
    other = job.model_copy(update={"controlnet": path})
    save_file(weights, path)
    plain = generate(engine, job, control)
    assert np.array_equal(generate(engine, other, control).images[0], plain.images[0])
    save_file({name: tensor * 1.5 for name, tensor in weights.items()}, path)
    assert difference(generate(engine, other, control), plain) > 1


def test_broken_controlnet_is_an_error_and_the_next_job_runs(
    engine: Engine, job: Job, control: Pixels, tmp_path: Path
) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ControlNetError, match=r"broken\.safetensors"):
        generate(engine, job.model_copy(update={"controlnet": path}), control)
    assert generate(engine, job, control).facts.controlnet is not None


def test_memory_that_runs_out_is_said_in_a_sentence(
    tiny_model: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = Engine.load(settings_for(tiny_model, tmp_path))
    with monkeypatch.context() as short:
        short.setattr("models.inference.engine.denoise", run_out)
        with pytest.raises(OutOfMemory, match=r"128x128 does not fit the memory of cpu"):
            generate(engine, job)
    assert generate(engine, job).images[0].any(), "the next one runs"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be spoilt."""
    shutil.copytree(tiny_model, tmp_path / "copy")
    return tmp_path / "copy"


def test_folder_is_a_model_of_its_own_name(folder: Path, tmp_path: Path, job: Job) -> None:
    settings = ModelSettings(
        data_dir=tmp_path, model=str(folder), controlnet=str(folder / "controlnet.safetensors"), device="cpu"
    )
    engine = Engine.load(settings)
    assert generate(engine, job).facts.model == "copy"


def test_model_with_a_tensor_missing_is_refused_with_its_name(folder: Path, tmp_path: Path) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["cap_pad_token"]
    save_file(weights, path)
    settings = ModelSettings(data_dir=tmp_path, model=str(folder), device="cpu", controlnet="none")
    with pytest.raises(CheckpointError, match="lacks cap_pad_token"):
        Engine.load(settings)


def test_warm_up_makes_a_whole_picture_and_changes_no_other(
    engine: Engine, job: Job, control: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = generate(engine, job, control)
    monkeypatch.setattr("models.inference.engine.WARM_UP_SIDE", SIZE)
    decoded: list[int] = []
    monkeypatch.setattr("models.inference.engine.decode", lambda vae, latents: decoded.append(1) or latents)
    engine.warm_up()
    assert decoded == [1]
    monkeypatch.undo()
    assert np.array_equal(generate(engine, job, control).images[0], before.images[0])
