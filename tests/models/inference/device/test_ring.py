"""Blocks whose weights stream through the ring compute what they compute where they stay."""

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from models.inference.control.controlnet import KNOWN, Layout, empty_controlnet
from models.inference.denoise.blocks import blocks_of, use_own_blocks
from models.inference.denoise.transformer import Control, condition, control_tokens, predict
from models.inference.device import ring as ring_module
from models.inference.device.ring import CudaStreams, Ring

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Chain(nn.Module):
    """Blocks one after the other."""

    def __init__(self, count: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def homes(module: nn.Module) -> list[int]:
    return [weight.data_ptr() for weight in module.parameters()]


def streamed(model: Chain) -> Ring:
    ring = Ring(CPU)
    ring.stream(model, list(model.blocks))
    return ring


@pytest.mark.parametrize("held", [0, 1, 3, 5])
def test_streamed_and_held_blocks_compute_the_same_bit_for_bit(held: int) -> None:
    model, x = Chain(), torch.ones(2, 4)
    expected, at_home = model(x), homes(model)
    ring = streamed(model)
    block_bytes = sum(weight.nbytes for weight in model.blocks[0].parameters())
    assert ring.hold(list(model.blocks), held * block_bytes + 1) == 1
    held_now = [homes(block) != home for block, home in zip(model.blocks, _by_block(at_home), strict=True)]
    assert sum(held_now) == held
    for _ in range(3):
        assert torch.equal(model(x), expected)
    ring.hold(list(model.blocks), 0)
    assert homes(model) == at_home


def _by_block(pointers: list[int]) -> list[list[int]]:
    return [pointers[first : first + 4] for first in range(0, len(pointers), 4)]


def test_held_blocks_are_spread_and_fewer_of_them_are_some_of_the_same() -> None:
    model = Chain(34)
    ring = streamed(model)
    size = sum(weight.nbytes for weight in model.blocks[0].parameters())
    at_home, kept = _by_block(homes(model)), set(range(34))
    for count in (17, 8):
        ring.hold(list(model.blocks), count * size)
        now = {place for place, block in enumerate(model.blocks) if homes(block) != at_home[place]}
        assert len(now) == count
        assert now <= kept
        longest = max(b - a for a, b in zip(sorted(now), sorted(now)[1:], strict=False))
        assert longest <= 2 * 34 / count
        kept = now


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), KeyboardInterrupt()])
def test_block_that_fails_or_is_stopped_half_way_leaves_the_next_pass_right(error: BaseException) -> None:
    model, x = Chain(), torch.ones(2, 4)
    expected, at_home = model(x), homes(model)
    ring = streamed(model)
    for block in model.blocks:

        def fail(*_: Any) -> None:
            raise error

        hook = block[1].register_forward_pre_hook(fail)  # type: ignore[index]
        with pytest.raises(type(error)):
            model(x)
        hook.remove()
        ring.hold(list(model.blocks), 10**6)
        ring.hold(list(model.blocks), 0)
        assert homes(model) == at_home
        assert torch.equal(model(x), expected)


def test_weights_that_change_on_the_host_are_read_anew() -> None:
    model, x = Chain(2), torch.ones(2, 4)
    ring = streamed(model)
    model(x)
    with torch.no_grad():
        model.blocks[1][0].weight.mul_(2)  # type: ignore[index, union-attr, operator]
    ring.forget()
    plain = Chain(2)
    with torch.no_grad():
        plain.blocks[1][0].weight.mul_(2)  # type: ignore[index, union-attr, operator]
    assert torch.equal(model(x), plain(x))


def test_weight_that_is_changed_at_home_is_changed_for_good_though_its_block_was_held() -> None:
    model, x = Chain(2), torch.ones(2, 4)
    ring, blocks = streamed(model), list(model.blocks)
    weight = model.get_parameter("blocks.1.1.weight")
    for budget in (10**6, 0):
        ring.hold(blocks, 10**6)
        held = homes(blocks[0])
        ring.bring_home([weight])
        assert homes(blocks[0]) == held, "the others stay"
        with torch.no_grad():
            weight.mul_(2)
        ring.hold(blocks, budget)
        changed = model(x)
        ring.hold(blocks, 0)
        assert torch.equal(model(x), changed)
    assert weight[0] == 4


class Simulated:
    """A device whose two streams go on by chance, each in its own order."""

    def __init__(self, seed: int, careless: str = "") -> None:
        self._chance = random.Random(seed)
        self._careless = careless
        self._queues: tuple[list[Callable[[], bool]], list[Callable[[], bool]]] = ([], [])

    def compute(self, work: Callable[[], None]) -> None:
        self._give(0, lambda: work() is None)

    def copy(self, target: Tensor, source: Tensor, after: list[bool]) -> list[bool]:
        done: list[bool] = []
        if self._careless != "copy":
            self._give(1, lambda: bool(after))
        self._give(1, lambda: target.copy_(source) is not None)
        self._give(1, lambda: done.append(True) is None)
        return done

    def mark(self) -> list[bool]:
        done: list[bool] = []
        self._give(0, lambda: done.append(True) is None)
        return done

    def hold_back(self, event: list[bool]) -> None:
        if self._careless != "hold_back":
            self._give(0, lambda: bool(event))

    def wait(self, event: list[bool] | None) -> None:
        while self._careless != "wait" and event is not None and not event:
            self._go_on()

    def staging(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def finish(self) -> None:
        while any(self._queues):
            self._go_on()

    def _give(self, queue: int, work: Callable[[], bool]) -> None:
        self._queues[queue].append(work)
        for _ in range(self._chance.randrange(4)):
            self._go_on()

    def _go_on(self) -> None:
        queue = self._chance.choice(self._queues)
        if queue and queue[0]():
            del queue[0]


class Told(nn.Module):
    """Tells what its weight is when the device comes to it."""

    def __init__(self, number: int, device: Simulated, told: list[tuple[int, float]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((8,), float(number)))
        self.number, self._device, self._told = number, device, told

    def forward(self, *, fails: bool) -> None:
        numbers, expected = self.weight.data, self.number
        for _ in range(2):
            self._device.compute(lambda: self._told.append((expected, numbers.sum().item() / 8)))
        if fails:
            raise ValueError


def wrong_numbers(seed: int, careless: str = "") -> int:
    """How many forwards saw another block's weights; some passes fail, and some take another way."""
    device, chance, told = Simulated(seed, careless), random.Random(seed), list[tuple[int, float]]()
    blocks = [Told(number, device, told) for number in range(6)]
    ring = Ring(CPU, device)
    ring.stream(nn.ModuleList(blocks), blocks)
    for _ in range(6):
        way = blocks if chance.random() < 0.7 else chance.sample(blocks, 4)
        try:
            for block in way:
                block(fails=chance.random() < 0.05)
        except ValueError:
            pass
        if chance.random() < 0.5:
            changing = chance.choice(blocks)
            ring.bring_home([changing.weight])
            changing.number += 10
            changing.weight.data = torch.full((8,), float(changing.number))
        ring.hold(blocks, chance.choice((0, 64)))
    device.finish()
    assert told
    return sum(number != seen for number, seen in told)


def test_no_block_ever_reads_another_one_s_weights_however_the_streams_interleave() -> None:
    assert [seed for seed in range(40) if wrong_numbers(seed)] == []


@pytest.mark.parametrize("careless", ["copy", "hold_back", "wait"])
def test_each_event_is_needed_for_that(careless: str) -> None:
    assert any(wrong_numbers(seed, careless) for seed in range(40))


class Copies(TorchDispatchMode):
    """The copies between host and device, and what was computed with tensors of both."""

    def __init__(self) -> None:
        super().__init__()
        self.pageable: list[str] = []
        self.mixed: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {each.device.type for each in args if isinstance(each, Tensor) and each.dim()}
        if "copy" in func._schema.name:
            blocking = not (args[2] if len(args) > 2 else (kwargs or {}).get("non_blocking"))
            if len(devices) > 1 and blocking:
                self.pageable.append(str(func))
        elif len(devices) > 1:
            self.mixed.append(str(func))
        return out


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Tensors without numbers that say they are on a GPU, and no streams but one."""

    def point(tensor: Any, data: Any) -> None:
        tensor.data = data
        tensor.fake_device = data.fake_device

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]  # type: ignore[no-any-return]

    class Stream:
        def wait_event(self, event: object) -> None:
            assert event is not None

        def record_event(self) -> object:
            return self

        def synchronize(self) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(ring_module, "_point", point)
    # Which kernel serves is asked of the card itself.
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        yield mode


def as_fake(model: Any, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A meta model with fake weights on the host."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(weight.shape, dtype=dtype), requires_grad=False))
    return model.eval()


def published(layers: int) -> Any:
    with torch.device("meta"):
        return use_own_blocks(ZImageTransformer2DModel(axes_lens=[1536, 512, 512], n_layers=layers))


def test_every_product_of_a_published_step_finds_its_weights_on_the_card(fake_cuda: FakeTensorMode) -> None:
    transformer = as_fake(published(5))
    branch = as_fake(use_own_blocks(empty_controlnet(Layout("1.0", (0, 3), 16, None), transformer.config)))
    ring = Ring(CUDA)
    blocks = blocks_of(transformer)
    own = [*branch.control_layers, *branch.control_noise_refiner]
    ring.stream(transformer, blocks)
    ring.stream(branch, own)
    ring.hold(blocks, 4 * 10**8)
    with Copies() as copies:
        caption = torch.empty(20, 2560, device=CUDA)
        latents = torch.empty(1, 16, 128, 128, device=CUDA)
        conditioning = condition(transformer, caption, 128, 128)
        control = Control(branch, control_tokens(transformer, branch, latents), 0.7)
        for _ in range(2):
            made = predict(transformer, conditioning, latents, torch.zeros(1, device=CUDA), control)
    assert made.device.type == "cuda"
    assert (copies.mixed, copies.pageable) == ([], [])
    where = [next(block.parameters()).device.type for block in (*blocks, *own)]
    assert where.count("cuda") == 1


def test_host_memory_that_cannot_be_locked_is_used_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def empty(size: int, *, dtype: torch.dtype, pin_memory: bool = False) -> Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")
        return torch.zeros(size, dtype=dtype)

    streams = object.__new__(CudaStreams)
    monkeypatch.setattr(ring_module.torch, "empty", empty)  # type: ignore[attr-defined]
    assert streams.staging(8).nbytes == 8
    assert caplog.messages == [
        "0.0 GB of host memory cannot be locked, so copies are slow: CUDA error: out of memory"
    ]


def test_what_the_published_models_lock_of_the_host_is_small() -> None:
    ring, transformer = Ring(CPU), published(30)
    for layout in KNOWN:
        branch = empty_controlnet(layout, transformer.config)
        ring.stream(nn.Module(), [*branch.control_layers, *(branch.control_noise_refiner or ())])
    ring.stream(nn.Module(), list(transformer.layers))
    # Numbers of float32 on the meta device; the allocator of locked memory rounds up to a power of two.
    slot = 1 << (ring._size // 2 - 1).bit_length()
    assert ring_module.SLOTS * slot <= 1.5e9
