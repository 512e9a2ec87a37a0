"""Devices that are not here, by stand-ins of PyTorch's: NVIDIA's old cards and Apple's GPU."""

import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.inference.device.devices import find_device
from models.inference.device.steps import Steps
from models.inference.engine import Engine
from models.job import Job, Pixels

MPS = torch.device("mps")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GeForce GTX 1080")
    return monkeypatch


WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "sm_120"]


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((7, 5), WHEEL, True),
        ((8, 9), WHEEL, True),
        ((12, 1), WHEEL, True),
        ((6, 1), WHEEL, False),
        ((7, 0), WHEEL, False),
        ((11, 0), WHEEL, False),
        ((11, 0), [*WHEEL, "compute_100"], True),
        # AMD's have other names.
        ((9, 4), ["gfx942"], True),
    ],
)
def test_card_without_kernels_is_refused_with_what_to_do(
    card: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str], runs: bool
) -> None:
    card.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    card.setattr(torch.cuda, "get_arch_list", lambda: built)
    if runs:
        assert find_device("auto") == "cuda"
        return
    own = ".".join(map(str, capability))
    with pytest.raises(ModelError, match=rf"GTX 1080.* {own}, but for 7\.5, 8\.0.*: set ZTURBO_DEVICE=cpu\."):
        find_device("auto")
    assert find_device("cpu") == "cpu"


def test_apples_gpu_is_waited_for_in_each_layer_and_at_the_end_of_a_step_and_a_stage(
    engine: Engine, job: Job, control: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    expected = engine.generate(job, control, lambda step: None).images[0]
    # The numbers stay on the processor: what is looked at is when the GPU would be waited for.
    monkeypatch.setattr(torch.mps, "synchronize", lambda: seen.append("wait"))
    monkeypatch.setattr(engine._model, "steps", Steps(MPS))
    made = engine.generate(
        job, control, lambda step: seen.append("step"), keep_going=lambda: seen.append("heard")
    )
    assert np.array_equal(made.images[0], expected)
    ends = [place for place, each in enumerate(seen) if each == "step"]
    assert len(ends) == job.num_inference_steps
    assert all(seen[end - 1] == "wait" for end in ends)
    assert seen[-1] == "wait"
    layers = len(engine._model.transformer.layers)
    between = seen[ends[0] : ends[1]]
    assert layers < between.count("wait") < between.count("heard")
