"""Atheris on the three ways by which strangers' bytes come in: pictures, data URIs, safetensors headers.

Each runs in a process of its own, because a fault of a decoder ends it:
`python -m tests.fuzz.target NAME FOLDER [options of libFuzzer]`.
"""

import importlib
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

LONGEST_SECONDS = 25
"""For one input: a picture of the largest size takes seven on a busy core."""
MEMORY_MB = 3000
LEAKS = (" at 0x", "<_io", "Traceback", "PIL", "/tmp")
HEIC = Path(__file__).parents[2] / "tests" / "worker" / "inputs" / "pictures"


def picture(data: bytes) -> None:
    from worker.errors import ImageError
    from worker.inputs.decode import read_image

    try:
        read_image(data, "image_url")
    except ImageError as error:
        _check(error)


def data_uri(data: bytes) -> None:
    from worker.config import WorkerSettings
    from worker.errors import FetchError
    from worker.inputs.input_image import read_source
    from worker.storage.folder import FolderObjects
    from worker.storage.pictures import Storage

    settings = WorkerSettings(_env_file=None, max_image_bytes=1000)
    try:
        read_source("data:" + data.decode("latin-1"), "image_url", settings, Storage(FolderObjects(Path())))
    except FetchError as error:
        _check(error)


def safetensors(data: bytes) -> None:
    from models.errors import CheckpointError
    from models.weights.header import kind, read_header

    path = Path(tempfile.gettempdir()) / "fuzzed.safetensors"
    path.write_bytes(data)
    try:
        kind(read_header(path))
    except CheckpointError as error:
        _check(error)


def _check(error: Exception) -> None:
    assert not any(leak in str(error) for leak in LEAKS), str(error)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "picture": picture,
    "data_uri": data_uri,
    "safetensors": safetensors,
}


def seeds(name: str) -> list[bytes]:
    """Good inputs to begin with."""
    if name == "data_uri":
        return [b"image/png;base64,aGVsbG8=", b"image/svg+xml;charset=utf-8;base64,", b",x"]
    if name == "safetensors":
        header = b'{"__metadata__":{"format":"pt"},"a.lora_A.weight":{"dtype":"F16","shape":[6],'
        header += b'"data_offsets":[0,12]}}'
        return [len(header).to_bytes(8, "little") + header + bytes(12)]
    made = [path.read_bytes() for path in HEIC.glob("*.heic")]
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"):
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            Image.new(mode, (9, 7), 3).save(file, format)
            made.append(file.getvalue())
    return made


def feed(name: str, seconds: int, seed: int) -> dict[str, Any]:
    """How many inputs were tried, and what broke it."""
    with tempfile.TemporaryDirectory(prefix="zturbo-fuzz-") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, data in enumerate(seeds(name)):
            (corpus / str(number)).write_bytes(data)
        options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={LONGEST_SECONDS}"]
        options += [f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
        command = [sys.executable, "-m", "tests.fuzz.target", name, str(corpus), *options]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        tried = re.search(r"number_of_executed_units: (\d+)", done.stdout)
        if tried is None or done.returncode:
            print(done.stdout[-3000:])
        found = [f"{path.name}: {path.read_bytes().hex()}" for path in Path(folder).glob("*-*")]
        if done.returncode and not found:
            found = [f"it ended with status {done.returncode}"]
        return {"tried": int(tried[1]) if tried else 0, "seconds": seconds, "found": found}


if __name__ == "__main__":
    import atheris

    _, target, *arguments = sys.argv
    with atheris.instrument_imports(include=["PIL", "pi_heif", "safetensors", "models", "worker"]):
        for module in ("models.weights.header", "worker.inputs.decode", "worker.inputs.input_image"):
            importlib.import_module(module)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()
