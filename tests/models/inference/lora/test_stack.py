"""LoRAs in and out of a transformer: what a sequence of requests leaves behind."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor

from models.errors import LoraError
from models.inference.lora import factors
from models.inference.lora.delta import Delta
from models.inference.lora.merge import Tensors
from models.inference.lora.stack import KEPT_PLANS, LoraStack, inspect
from models.job import LoraFile
from tests.models.inference.lora.lora_files import (
    known_change,
    lora_tensors,
    merged,
    run,
    tiny_transformer,
    write,
)
from tests.models.inference.lora.lora_formats import COMFYUI, FORMATS, KOHYA, KOHYA_PREFIX

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[LoraFile]:
    """Three LoRAs of three formats over the same weights, and one of them over some only."""
    folder = tmp_path_factory.mktemp("loras")
    some = {module: pair for module, pair in known_change(12).pairs.items() if "layers.1" in module}
    return [
        write(folder / "one.safetensors", lora_tensors(known_change(11).pairs, KOHYA_PREFIX, *KOHYA)),
        write(folder / "two.safetensors", lora_tensors(some, COMFYUI)),
        write(folder / "three.safetensors", FORMATS["lokr-split-second"]().tensors),
    ]


def scaled(lora: LoraFile, scale: float) -> LoraFile:
    return lora.model_copy(update={"scale": scale})


def bits(model: ZImageTransformer2DModel) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.named_parameters()}


def same_bits(model: ZImageTransformer2DModel, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())


def writes(model: ZImageTransformer2DModel) -> int:
    """How often the weights were written in place so far."""
    return sum(weight._version for weight in model.parameters())


def test_three_at_once_equal_the_sum_of_their_dense_changes(three: list[LoraFile]) -> None:
    scales = (0.3, 1.7, 4.0)
    model = tiny_transformer()
    LoraStack(model).apply([scaled(lora, scale) for lora, scale in zip(three, scales, strict=True)])
    dense = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    changes = (known_change(11).dense(), known_change(12).dense(), FORMATS["lokr-split-second"]().dense)
    for change, scale, part in zip(changes, scales, ("", "layers.1", ""), strict=True):
        for name, value in change.items():
            if part in name:
                dense[name] += scale * value
    torch.testing.assert_close(run(model), merged(tiny_transformer(), dense), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
def test_order_makes_no_difference_to_a_single_bit(three: list[LoraFile], dtype: torch.dtype) -> None:
    wanted = [scaled(lora, scale) for lora, scale in zip(three, (0.3, 1.1, 0.7), strict=True)]
    model = tiny_transformer(dtype)
    stack = LoraStack(model)
    stack.apply(wanted)
    first = bits(model)
    for order in itertools.permutations(wanted):
        stack.apply([])
        stack.apply(order)
        assert same_bits(model, first)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
def test_after_fifty_random_requests_a_plain_one_is_bit_identical(
    three: list[LoraFile], dtype: torch.dtype
) -> None:
    model = tiny_transformer(dtype)
    plain, weights = run(model), bits(model)
    addresses = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    stack, draw = LoraStack(model), random.Random(5)
    for _ in range(50):
        chosen = draw.choices(three, k=draw.randint(0, 3))
        stack.apply([scaled(lora, draw.choice((0, 0.1, 1, 2.5, 4))) for lora in chosen])
        if draw.random() < 0.3:
            stack.apply([])
            assert same_bits(model, weights)
    stack.apply([])
    assert same_bits(model, weights)
    assert torch.equal(run(model), plain)
    assert addresses == {name: weight.data_ptr() for name, weight in model.named_parameters()}


def test_a_set_gives_the_same_bits_whatever_was_there_before(three: list[LoraFile]) -> None:
    model = tiny_transformer(torch.bfloat16)
    stack = LoraStack(model)
    stack.apply(three[:1])
    alone = bits(model)
    stack.apply(three)
    stack.apply([scaled(three[1], 2.0)])
    stack.apply(three[:1])
    assert same_bits(model, alone)


def test_factors_stay_until_others_need_their_room(
    three: list[LoraFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    genuine = factors.low_rank

    def reading(delta: Delta, file: Tensors, scale: float) -> tuple[Tensor, Tensor]:
        read.append(delta.parameter)
        return genuine(delta, file, scale)

    monkeypatch.setattr(factors, "low_rank", reading)
    model = tiny_transformer()
    stack = LoraStack(model)
    stack.apply(three)
    first, before = bits(model), len(read)
    for loras in (three[:1], [], [scaled(three[1], 2.0)], three):
        stack.apply(loras)
    assert len(read) == before
    assert same_bits(model, first)
    monkeypatch.setattr(factors, "KEPT_BYTES", 0)
    stack.apply(three[:1])
    stack.apply(three)
    assert len(read) > before
    assert same_bits(model, first)


def test_scale_zero_leaves_every_bit_and_is_still_reported(three: list[LoraFile]) -> None:
    model = tiny_transformer()
    plain, weights = run(model), bits(model)
    applied = LoraStack(model).apply([scaled(three[0], 0.0)])
    assert same_bits(model, weights)
    assert torch.equal(run(model), plain)
    assert applied[0].scale == 0
    assert applied[0].matched > 0


def test_the_same_set_again_writes_no_weight(three: list[LoraFile]) -> None:
    model = tiny_transformer()
    stack = LoraStack(model)
    first = stack.apply(three)
    before = writes(model)
    assert stack.apply(three) == first
    assert [lora.name for lora in stack.apply(three[::-1])] == ["three", "two", "one"]
    assert writes(model) == before


def test_the_same_lora_twice_counts_twice(three: list[LoraFile]) -> None:
    twice, double = tiny_transformer(), tiny_transformer()
    LoraStack(twice).apply([three[0], three[0]])
    LoraStack(double).apply([scaled(three[0], 2.0)])
    torch.testing.assert_close(run(twice), run(double), atol=1e-4, rtol=1e-4)


def test_unmatched_keys_are_counted_and_the_rest_is_applied(tmp_path: Path) -> None:
    tensors = lora_tensors(known_change().pairs, COMFYUI)
    stray = {
        f"diffusion_model.layers.7.attention.to_q.{end}": torch.ones(4, 4) for end in ("lora_A.weight", "x")
    }
    model, clean = tiny_transformer(), tiny_transformer()
    applied = LoraStack(model).apply([write(tmp_path / "stray.safetensors", tensors | stray)])
    LoraStack(clean).apply([write(tmp_path / "clean.safetensors", tensors)])
    assert (applied[0].matched, applied[0].unmatched) == (len(tensors), 2)
    assert torch.equal(run(model), run(clean))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_nan_or_infinity_is_refused_by_its_key_and_none_is_applied(
    three: list[LoraFile], tmp_path: Path, broken: float
) -> None:
    tensors = lora_tensors(known_change().pairs, COMFYUI)
    key = "diffusion_model.layers.1.feed_forward.w2.lora_B.weight"
    tensors[key] = tensors[key].clone().index_fill(0, torch.tensor([3]), broken)
    bad = write(tmp_path / "bad.safetensors", tensors)
    model = tiny_transformer()
    weights = bits(model)
    stack = LoraStack(model)
    with pytest.raises(LoraError, match=f'^LoRA "bad" holds NaN or infinity \\("{key}"\\): .*again\\.$'):
        stack.apply([three[0], bad])
    assert same_bits(model, weights)
    stack.apply([])
    assert same_bits(model, weights)


def test_a_merge_too_large_for_the_weights_type_is_refused(tmp_path: Path) -> None:
    pairs = {"layers.0.attention.to_q": (torch.full((4, 64), 200.0), torch.full((64, 4), 200.0))}
    model = tiny_transformer(torch.float16)
    weights = bits(model)
    with pytest.raises(LoraError, match="use smaller scales"):
        LoraStack(model).apply([write(tmp_path / "huge.safetensors", lora_tensors(pairs, COMFYUI))])
    assert same_bits(model, weights)


def test_a_file_that_vanished_leaves_the_weights_plain(three: list[LoraFile], tmp_path: Path) -> None:
    gone = write(tmp_path / "gone.safetensors", lora_tensors(known_change().pairs, COMFYUI))
    model = tiny_transformer()
    weights = bits(model)
    stack = LoraStack(model)
    stack.apply([gone])
    gone.path.unlink()
    stack.apply([gone])
    with pytest.raises(LoraError, match='LoRA "gone" cannot be read any more'):
        stack.apply([three[0], gone])
    assert same_bits(model, weights)


def test_an_interruption_in_the_middle_leaves_the_weights_plain(
    three: list[LoraFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_transformer()
    weights = bits(model)
    stack = LoraStack(model)
    stack.apply(three[:1])
    calls = itertools.count()
    genuine = torch.kron

    def interrupt(*factors: Tensor) -> Tensor:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return genuine(*factors)

    monkeypatch.setattr(torch, "kron", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stack.apply(three)
    assert same_bits(model, weights)


def test_quantized_weights_are_refused(three: list[LoraFile]) -> None:
    model = tiny_transformer()
    weight = model.layers[0].attention.to_q.weight
    weight.data = weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(
        LoraError, match=r"quantized weights \(.*to_q.weight is stored as torch.float8_e4m3fn\)"
    ):
        LoraStack(model).apply(three[:1])


def test_weights_that_are_not_in_memory_are_refused(three: list[LoraFile]) -> None:
    with pytest.raises(LoraError, match=r"not in memory .* start the server again"):
        LoraStack(tiny_transformer().to("meta")).apply(three[:1])


def test_more_files_than_plans_are_kept(tmp_path: Path) -> None:
    model = tiny_transformer()
    stack = LoraStack(model)
    pairs = {"layers.0.attention.to_q": known_change().pairs["layers.0.attention.to_q"]}
    for number in range(KEPT_PLANS + 2):
        tensors = lora_tensors({name: (down + number, up) for name, (down, up) in pairs.items()}, COMFYUI)
        lora = write(tmp_path / f"{number}.safetensors", tensors)
        assert stack.apply([lora])[0].matched == 3


def test_inspect_reads_no_weight(tmp_path: Path) -> None:
    """A file whose tensors are all NaN, as good as any by its header."""
    tensors = {key: value * torch.nan for key, value in lora_tensors(known_change().pairs, COMFYUI).items()}
    plan = inspect(write(tmp_path / "lora.safetensors", tensors).path, tiny_transformer())
    assert (plan.matched, plan.unmatched, plan.format) == (len(tensors), 0, "comfyui lora")
