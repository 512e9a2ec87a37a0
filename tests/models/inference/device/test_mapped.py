"""A large model on a CPU: its weights stay in their files, and its pictures are those of copied ones."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ZImageTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from models.config import ModelSettings
from models.errors import LoraError, OutOfMemory
from models.inference.denoise.beside import MappedLinear, leave_weights_mapped
from models.inference.device import pages
from models.inference.device.pages import unmap, unwritten_files
from models.inference.device.placement import TILE_PIXELS, Placement, peak_bytes
from models.inference.engine import Engine
from models.inference.loading.copies import OnBytes
from models.inference.loading.footprint import footprint
from models.inference.loading.tensors import Weights
from models.inference.lora import stack
from models.inference.lora.stack import LoraStack
from models.job import Generated, Job, LoraFile
from tests.models.inference.lora.lora_files import (
    known_change,
    lora_tensors,
    run,
    tiny_transformer,
    write,
)
from tests.models.inference.lora.lora_formats import COMFYUI, FORMATS
from tests.models.inference.test_engine import write_lora
from tests.models.inference.untrained import CONTROLNET

SIZE = 128


def load(model: Path, folder: Path, on_copy: OnBytes | None = None, **options: str) -> Engine:
    controlnet = str(model / CONTROLNET)
    settings = ModelSettings(
        data_dir=folder,
        model=str(model),
        controlnet=controlnet,
        device="cpu",
        _env_file=None,
        **options,  # type: ignore[arg-type]
    )
    return Engine.load(settings, on_copy)


def generate(engine: Engine, model: Path, *loras: LoraFile) -> Generated:
    job = Job(
        prompt="a red ball", width=SIZE, height=SIZE, num_inference_steps=2, seed=1, loras=loras,
        controlnet=model / CONTROLNET, controlnet_name="its own",
    )  # fmt: skip
    return engine.generate(job, np.full((SIZE, SIZE, 3), 90, np.uint8), lambda step: None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mapped_model_makes_the_picture_of_a_resident_one_bit_for_bit(
    half_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    resident = generate(load(half_model, tmp_path, dtype=dtype), half_model)
    monkeypatch.setattr("models.inference.device.placement.SMALL_PARAMETERS", 0)
    engine = load(half_model, tmp_path, dtype=dtype)
    assert engine._model.placement.mode == "mapped"
    done: list[nn.Module] = []

    def unmap_and_tell(module: nn.Module, files: Sequence[range]) -> None:
        unmap(module, files)
        done.append(module)

    monkeypatch.setattr(pages, "unmap", unmap_and_tell)
    made = generate(engine, half_model)
    assert np.array_equal(made.images[0], resident.images[0])
    # The last layer is not run for a prompt.
    assert done == list(engine._model._text_encoder.base_model.layers[:-1])
    again = generate(engine, half_model)
    assert np.array_equal(again.images[0], made.images[0])


@pytest.mark.parametrize("rest", ["bfloat16", "float32"])
def test_model_in_eight_bits_is_mapped_from_its_copies_and_draws_as_from_memory(
    half_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    lora = write_lora(tmp_path)
    monkeypatch.setattr("models.inference.device.loaded_model.fast_type", lambda device: rest)
    resident = load(half_model, tmp_path, quantization="int8")
    pictures = [generate(resident, half_model, *loras).images[0] for loras in ((), (lora,))]
    monkeypatch.setattr("models.inference.device.placement.SMALL_PARAMETERS", 0)
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 0)
    engine = load(half_model, tmp_path, quantization="int8")
    assert (engine._model.placement.mode, engine._model.placement.precision) == ("mapped", "int8")
    for loras, picture in zip(((), (lora,), ()), (*pictures, pictures[0]), strict=True):
        assert np.array_equal(generate(engine, half_model, *loras).images[0], picture)
    assert len(list((tmp_path / "cache").glob("*-int8-*.safetensors"))) == 3


def test_disk_that_fills_up_while_a_copy_is_written_has_the_plan_made_again(
    half_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.device.placement.SMALL_PARAMETERS", 0)
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 0)
    weight = footprint(half_model, half_model / CONTROLNET)
    resident = Placement("cpu", "bfloat16", "resident", TILE_PIXELS, "int8")

    def full(done: int, total: int) -> None:
        raise OSError(28, "No space left on device")

    def start(free: int) -> Engine:
        monkeypatch.setattr("models.inference.device.loaded_model.free_bytes", lambda device: free)
        return load(half_model, tmp_path, on_copy=full, quantization="int8")

    needed = peak_bytes(weight, resident)
    assert start(needed)._model.placement.mode == "resident"
    with pytest.raises(OutOfMemory, match=r"in int8 \(resident\), and .* are free: "):
        start(needed - 1)


@pytest.mark.skipif(sys.platform != "linux", reason="pages are told of by Linux")
def test_pages_of_a_part_that_is_done_leave_the_process_but_for_those_of_a_file_with_a_written_one(
    tmp_path: Path,
) -> None:
    model = nn.ModuleDict({name: nn.Linear(256, 256, bias=False) for name in ("read", "written")})
    for name, layer in model.items():
        save_file({"weight": torch.ones(256, 256)}, tmp_path / f"{name}.safetensors")
        weight = Weights([tmp_path / f"{name}.safetensors"], mapped=True).read("weight")
        layer.weight = nn.Parameter(weight, requires_grad=False)
    model["copied"] = nn.Linear(256, 256)
    model["written"].weight[100] = 2
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert resident_bytes(tmp_path) > 2 * 2**18
    unmap(model, list(unwritten_files()))
    assert 2**18 < resident_bytes(tmp_path) < 1.2 * 2**18
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_prompt_is_expanded_by_a_mapped_text_encoder(
    half_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.device.placement.SMALL_PARAMETERS", 0)
    monkeypatch.setattr("models.inference.text_encoder.MAX_NEW_TOKENS", 20)
    for dtype in ("float32", "bfloat16"):
        engine = load(half_model, tmp_path, dtype=dtype)
        assert engine.expand("a cat", 1) == engine.expand("a cat", 1)


def test_what_is_written_into_a_mapped_weight_stays_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3)}, path)
    before = path.read_bytes()
    tensor = Weights([path], mapped=True).read("a")
    tensor.zero_()
    assert path.read_bytes() == before
    assert torch.equal(Weights([path], mapped=True).read("a"), torch.arange(6.0).reshape(2, 3))


def resident_bytes(place: Path) -> int:
    """Bytes of a file, or of those in a folder, that are mapped by this process and in its memory."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if first == "Rss:":
            found += here * 1024 * int(rest[0])
        elif not first.endswith(":"):
            here = str(place) in line
    return found


def mapped_transformer() -> tuple[ZImageTransformer2DModel, LoraStack, dict[str, Tensor]]:
    model = leave_weights_mapped(tiny_transformer())
    return model, LoraStack(model), {name: weight.data for name, weight in model.named_parameters()}


def test_loras_beside_mapped_weights_do_what_merged_ones_do_and_leave_nothing(tmp_path: Path) -> None:
    usual = write(tmp_path / "usual.safetensors", lora_tensors(known_change(11).pairs, COMFYUI))
    lokr = write(tmp_path / "lokr.safetensors", FORMATS["lokr-split-second"]().tensors)
    model, loras, files = mapped_transformer()
    plain = run(model)
    for chosen in ([usual], [usual, lokr], [lokr]):
        loras.apply(chosen)
        other = tiny_transformer()
        LoraStack(other).apply(chosen)
        torch.testing.assert_close(run(model), run(other), atol=1e-4, rtol=1e-4)
        loras.apply([])
        assert torch.equal(run(model), plain)
        assert all(weight.data_ptr() == files[name].data_ptr() for name, weight in model.named_parameters())


def test_lora_of_the_usual_kind_takes_no_copy_of_a_mapped_weight(tmp_path: Path) -> None:
    usual = write(tmp_path / "usual.safetensors", lora_tensors(known_change(11).pairs, COMFYUI))
    model, loras, files = mapped_transformer()
    loras.apply([usual])
    assert all(weight.data_ptr() == files[name].data_ptr() for name, weight in model.named_parameters())
    assert any(isinstance(layer, MappedLinear) and layer.up is not None for layer in model.modules())


def test_lora_that_needs_more_memory_than_is_free_is_refused_and_has_the_room_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lokr = write(tmp_path / "lokr.safetensors", FORMATS["lokr-split-second"]().tensors)
    other = lokr.model_copy(update={"scale": 0.5})
    model, loras, files = mapped_transformer()
    plain = run(model)

    def free() -> int:
        own = [
            weight for name, weight in model.named_parameters() if weight.data_ptr() != files[name].data_ptr()
        ]
        return room - sum(weight.nbytes for weight in own)

    monkeypatch.setattr(stack, "host_free_bytes", free)
    room = sum(weight.nbytes for weight in files.values())
    for chosen in (lokr, other):
        loras.apply([chosen])
        assert free() < room / 2
    room = 0
    with pytest.raises(LoraError, match="GB of memory are free"):
        loras.apply([lokr])
    assert torch.equal(run(model), plain)
