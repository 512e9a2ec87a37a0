"""Copies of weights in fewer bits: made once, mapped afterwards, and made anew where they were changed."""

import fcntl
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Block
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.inference.control.controlnet import load_controlnet
from models.inference.denoise.int8 import round_rows
from models.inference.device.pages import unwritten_files
from models.inference.loading.components import Files, load_text_encoder, load_transformer
from models.inference.loading.copies import Copies
from models.inference.loading.footprint import footprint
from tests.models.inference.loading.test_gguf import write_gguf
from tests.models.inference.untrained import CONTROLNET

CPU = torch.device("cpu")
FILE = "diffusion_pytorch_model.safetensors"
GGUF_BLOCKS = {torch.bfloat16: Block.BF16, torch.float16: Block.F16}


@pytest.fixture(autouse=True)
def everything_is_worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 0)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A transformer's folder that a test may change."""
    (tmp_path / "transformer").mkdir()
    for path in (tiny_model / "transformer").iterdir():
        (tmp_path / "transformer" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "transformer"


def load(folder: Path, copies: Copies) -> dict[str, Tensor]:
    model = load_transformer(folder, None, torch.bfloat16, CPU, copies, eight_bits="int8", mapped=True)
    return dict(model.named_parameters())


def only(cache: Path) -> Path:
    (copy,) = cache.iterdir()
    return copy


def lies_in(tensor: Tensor, path: Path) -> bool:
    """Whether a tensor is a view of the file, whose pages every process shares."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split()
        begin, end = (int(edge, 16) for edge in span.split("-"))
        if begin <= tensor.data_ptr() < end:
            return Path(name) == path
    return False


def test_second_start_maps_what_the_first_has_rounded(folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    cache = tmp_path / "cache"
    first = load(folder, Copies(cache, on_bytes=lambda done, total: told.append((done, total))))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (sum(tensor.nbytes for tensor in load_file(only(cache)).values()),) * 2
    inode = only(cache).stat().st_ino
    again = load(folder, Copies(cache, on_bytes=lambda done, total: pytest.fail("written twice")))
    assert only(cache).stat().st_ino == inode
    originals = load_file(folder / FILE)
    name = "layers.0.feed_forward.w2"
    for parameters in (first, again):
        numbers, scale = round_rows(originals[f"{name}.weight"])
        assert torch.equal(parameters[f"{name}.weight"], numbers)
        assert torch.equal(parameters[f"{name}.scale"], scale)
        assert torch.equal(parameters["x_pad_token"], originals["x_pad_token"].bfloat16())
        assert lies_in(parameters[f"{name}.weight"], only(cache))


def cut_off(copy: Path, folder: Path) -> None:
    os.truncate(copy, copy.stat().st_size - 8)


def written_into(copy: Path, folder: Path) -> None:
    with copy.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))


def no_header(copy: Path, folder: Path) -> None:
    copy.write_bytes(b"\0" * copy.stat().st_size)


def of_other_weights(copy: Path, folder: Path) -> None:
    other = {name: tensor + 1 for name, tensor in load_file(copy).items()}
    save_file(other, copy, {"made_from": "0" * 64, "written_at": "1000000000"})
    os.utime(copy, (1, 1))


def new_weights(copy: Path, folder: Path) -> None:
    weights = load_file(folder / FILE)
    save_file({name: tensor * 2 for name, tensor in weights.items()}, folder / FILE, {"format": "pt"})


@pytest.mark.parametrize("spoil", [cut_off, written_into, no_header, of_other_weights, new_weights])
def test_copy_that_is_not_what_it_was_is_made_anew(
    spoil: Callable[[Path, Path], None], folder: Path, tmp_path: Path
) -> None:
    load(folder, Copies(tmp_path / "cache"))
    spoil(only(tmp_path / "cache"), folder)
    found = load(folder, Copies(tmp_path / "cache"))
    expected = load(folder, Copies(tmp_path / "nothing", max_bytes=0))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_copy_is_said_to_be_made_once_before_it_is_made_and_how_long_it_takes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "models.inference.loading.copies")
    # Minutes, as of the published size.
    monkeypatch.setattr("models.inference.loading.copies.COPIED_BYTES", 1000)
    load(folder, Copies(tmp_path / "cache"))
    first, *others, last = caplog.messages
    minutes = math.ceil(sum(tensor.nbytes for tensor in load_file(only(tmp_path / "cache")).values()) / 6e4)
    assert first.startswith(f"writing a copy (int8-bf16) of {folder} for later starts, once: ")
    assert first.endswith(f", about {minutes} min")
    assert all(re.search(r"^\d0 % of .* are written, about \d+ s left$", each) for each in others)
    assert re.search("^100 % of .* are written", last)
    caplog.clear()
    load(folder, Copies(tmp_path / "cache"))
    assert caplog.messages == []


def test_full_disk_is_told_and_the_model_loads_without_a_copy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 2**62)
    load(folder, Copies(cache))
    assert "no room" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 0)

    def full(done: int, total: int) -> None:
        raise OSError(28, "No space left on device")

    assert load(folder, Copies(cache, on_bytes=full))
    assert "No space left on device" in caplog.text
    assert not list(cache.iterdir())


def test_conversion_that_is_killed_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    program = f"""
import os, signal, torch
from pathlib import Path
from models.inference.loading import copies
from models.inference.loading.components import load_transformer
copies.WORTHWHILE_BYTES = 0
kept = copies.Copies(Path({str(cache)!r}), on_bytes=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
load_transformer(Path({str(folder)!r}), None, torch.bfloat16, torch.device("cpu"), kept, eight_bits="int8")
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode < 0
    assert not list(cache.iterdir())
    (cache / ".draft-left").write_bytes(b"where a file needs a name to be written")
    load(folder, Copies(cache))
    assert only(cache).suffix == ".safetensors"


def test_float16_is_mapped_from_a_copy_that_no_page_is_written_of(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    encoder, branch = tiny_model / "text_encoder", tiny_model / CONTROLNET
    cache = tmp_path / "cache"

    def load_all(most: int = 2**40) -> list[Any]:
        copies = Copies(cache, most)
        transformer = load_transformer(folder, None, torch.float16, CPU, copies, mapped=True)
        config = transformer.config
        return [
            transformer,
            load_text_encoder(encoder, None, torch.float16, copies, mapped=True),
            load_controlnet(branch, config, torch.float16, CPU, copies=copies, mapped=True)[0],
        ]

    plain, first, again = load_all(0), load_all(), load_all()
    kept = list(cache.iterdir())
    assert len(kept) == 3
    for expected, *loaded in zip(plain, first, again, strict=True):
        for name, tensor in expected.named_parameters():
            for model in loaded:
                assert torch.equal(model.get_parameter(name), tensor)
    unwritten = list(unwritten_files())
    for model in again:
        assert all(any(each.data_ptr() in span for span in unwritten) for each in model.parameters())


def written(stored: str, source: Path, target: Path) -> Path:
    """The weights of a file in another type, as safetensors or as GGUF."""
    weights, dtype = load_file(source), getattr(torch, stored.removesuffix(" gguf"))
    if not stored.endswith("gguf"):
        save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, target, {"format": "pt"})
        return target
    return write_gguf(target.with_suffix(".gguf"), weights, GGUF_BLOCKS[dtype])


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32", "bfloat16 gguf", "float16 gguf"])
def test_bfloat16_is_mapped_from_files_in_it_and_from_a_copy_of_others_as_is_planned(
    stored: str, tiny_model: Path, tmp_path: Path
) -> None:
    encoder, folder = tiny_model / "text_encoder", tiny_model / "transformer"
    transformer = written(stored, folder / FILE, tmp_path / "transformer.safetensors")
    # No control branch is read from GGUF, and the names in one are others for a text encoder.
    plain = stored.removesuffix(" gguf")
    branch = written(plain, tiny_model / CONTROLNET, tmp_path / "controlnet.safetensors")
    text = written(plain, encoder / "model.safetensors", tmp_path / "text.safetensors")
    planned = footprint(tiny_model, branch, Files(transformer, text))
    assert planned.cast == {
        part
        for part, kind in (("transformer", stored), ("text_encoder", plain), ("controlnet", plain))
        if kind != "bfloat16"
    }
    copies = Copies(tmp_path / "cache", checkpoints=planned.checkpoints)
    model = load_transformer(folder, transformer, torch.bfloat16, CPU, copies, mapped=True)
    models = [
        model,
        load_text_encoder(encoder, text, torch.bfloat16, copies, mapped=True),
        load_controlnet(branch, model.config, torch.bfloat16, CPU, copies=copies, mapped=True)[0],
    ]
    unwritten = list(unwritten_files())
    for each in models:
        assert all(any(tensor.data_ptr() in span for span in unwritten) for tensor in each.parameters())
    assert len(list((tmp_path / "cache").glob("*"))) == len(planned.cast)
    assert copies.missing(sum(path.stat().st_size for path in (tmp_path / "cache").glob("*"))) == 0


def test_process_that_wants_the_copy_which_another_writes_waits_and_maps_the_same_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    program = f"""
import sys, torch
from pathlib import Path
from models.inference.loading import copies
from models.inference.loading.components import load_transformer
copies.WORTHWHILE_BYTES, told = 0, []
def stop(done, total):
    told or print("writing", flush=True) or sys.stdin.readline()
    told.append(done)
kept = copies.Copies(Path({str(cache)!r}), on_bytes=stop)
load_transformer(Path({str(folder)!r}), None, torch.bfloat16, torch.device("cpu"), kept, eight_bits="int8")
print("inode", *(path.stat().st_ino for path in Path({str(cache)!r}).iterdir()), flush=True)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as writer:  # type: ignore[call-overload]
        try:
            assert writer.stdout.readline() == "writing\n"
            flock, waited = fcntl.flock, []

            def told(descriptor: int, operation: int) -> None:
                try:
                    flock(descriptor, operation | fcntl.LOCK_NB)
                except BlockingIOError:
                    waited.append(descriptor)
                    print("go on", file=writer.stdin, flush=True)
                    flock(descriptor, operation)

            monkeypatch.setattr(fcntl, "flock", told)
            mapped = load(folder, Copies(cache, on_bytes=lambda done, total: pytest.fail("written twice")))
            assert len(waited) == 1
            assert writer.stdout.readline() == f"inode {only(cache).stat().st_ino}\n"
            assert lies_in(mapped["layers.0.feed_forward.w2.weight"], only(cache))
        finally:
            writer.kill()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Gives the disk of the copies so many bytes beside what a promise leaves free."""

    def give(size: int) -> None:
        def spare(cache: Path) -> int:
            return size + 1000 - sum(path.stat().st_size for path in cache.glob("*.safetensors"))

        monkeypatch.setattr("models.inference.loading.copies.SPARE_BYTES", 1000)
        monkeypatch.setattr("models.inference.loading.copies.spare_bytes", spare)

    return give


def test_copy_in_another_form_that_nobody_uses_makes_room_and_one_in_use_does_not(
    folder: Path, tmp_path: Path, disk: Callable[[int], None]
) -> None:
    cache, files = tmp_path / "cache", [[folder / FILE]]
    in_use = Copies(cache)
    load_transformer(folder, None, torch.bfloat16, CPU, in_use)
    wide = only(cache)
    size = wide.stat().st_size
    disk(size)
    other_process = Copies(cache, checkpoints=[[wide]])
    assert "GB on the disk" in (other_process.lacks(size * 3 // 4) or "")
    load(folder, other_process)
    assert only(cache) == wide
    del in_use
    copies = Copies(cache, checkpoints=files)
    assert copies.lacks(size * 3 // 4) is None
    tensor = load(folder, copies)["layers.0.feed_forward.w2.weight"]
    assert "-int8-" in only(cache).name
    assert lies_in(tensor, only(cache))


def test_copy_of_another_user_is_mapped_and_never_deleted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Callable[[int], None]
) -> None:
    cache = tmp_path / "cache"
    load(folder, Copies(cache))
    theirs = only(cache)
    opened = os.open

    def refused(*arguments: Any, **options: Any) -> int:
        raise PermissionError(1, "Operation not permitted")

    def to_read(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        return refused() if path == theirs and flags & os.O_RDWR else opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", to_read)
    monkeypatch.setattr(os, "utime", refused)
    assert lies_in(load(folder, Copies(cache))["layers.0.feed_forward.w2.weight"], theirs)
    monkeypatch.setattr(os, "utime", lambda *arguments, **options: None)
    disk(theirs.stat().st_size)
    load_transformer(folder, None, torch.bfloat16, CPU, Copies(cache))
    assert only(cache) == theirs


def test_copies_of_one_model_make_no_room_for_each_other_and_the_quota_is_for_all(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    cache, encoder = tmp_path / "cache", tiny_model / "text_encoder"

    def load_both(max_bytes: int = 2**62) -> list[int]:
        copies = Copies(cache, max_bytes, checkpoints=[[folder / FILE], [encoder / "model.safetensors"]])
        model = load_text_encoder(encoder, None, torch.bfloat16, copies, eight_bits="int8", mapped=True)
        assert model.model.layers[0].mlp.down_proj.weight.dtype == torch.int8
        load(folder, copies)
        return [path.stat().st_size for path in cache.iterdir()]

    both = load_both()
    assert len(both) == 2
    (cache / next(path for path in cache.iterdir() if path.stat().st_size == min(both))).unlink()
    assert load_both(sum(both) - min(both) // 2) == [max(both)]
    assert sorted(load_both(sum(both))) == sorted(both)
