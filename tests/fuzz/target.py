"""Atheris on strangers' bytes: pictures, masks, data URIs, forms and safetensors headers.

Each runs in a process of its own, because a fault of a decoder ends it:
`python -m tests.fuzz.target NAME FOLDER [options of libFuzzer]`.
"""

import asyncio
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
from starlette.requests import Request

LONGEST_SECONDS = 25
"""For one input: a picture of the largest size takes seven on a busy core."""
MEMORY_MB = 3000
LEAKS = (" at 0x", "<_io", "Traceback", "PIL", "/tmp")
FORM_BYTES = 100_000
WITH_ARRAYS = ["worker.inputs.mask", "app.openai.form"]
"""Atheris keeps each array that a comparison makes: where all inputs make some these are not followed."""
HEIC = Path(__file__).parents[2] / "tests" / "worker" / "inputs" / "pictures"


def picture(data: bytes) -> None:
    from worker.errors import ImageError
    from worker.inputs.decode import read_image

    try:
        read_image(data, "image_url")
    except ImageError as error:
        _check(error)


def mask(data: bytes) -> None:
    """As an inpainting request has it, and as OpenAI's dialect, where the transparent part is meant."""
    from app.errors import ApiError
    from app.openai.form import white_mask
    from worker.errors import ImageError
    from worker.inputs.mask import fit_mask, read_mask

    try:
        fit_mask(read_mask(data, "mask_image_url", None), 64, 48, "mask_image_url")
    except ImageError as error:
        _check(error)
    try:
        read_mask(white_mask(data), "mask_image_url", None)
    except ApiError as error:
        _check(error)


def form(data: bytes) -> None:
    """The body of an edit, to the input of the endpoint that it is for."""
    from app.errors import ApiError
    from app.http.in_flight import SCOPE, BytesInFlight, Share
    from app.openai.bodies import read_edit
    from app.openai.form import read_form

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    async def nothing(*_: Any) -> None:
        return None

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    share = Share(BytesInFlight(nothing, FORM_BYTES * 4))
    request = Request({"type": "http", "headers": headers, "state": {}, SCOPE: share}, receive)
    try:
        read_edit(asyncio.run(read_form(request, FORM_BYTES)))
    except ApiError as error:
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
    "mask": mask,
    "data_uri": data_uri,
    "form": form,
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
    if name == "form":
        return forms()
    made = [path.read_bytes() for path in HEIC.glob("*.heic")]
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"):
        for mode in ("RGB", "L"):
            made.append(encoded(mode, format))
    if name == "mask":
        made += [encoded("RGBA", format) for format in ("PNG", "WEBP")]
        made += [encoded(mode, "PNG") for mode in ("LA", "P", "1", "I;16")]
    return made


def encoded(mode: str, format: str) -> bytes:
    """A small picture whose left half is white and opaque."""
    file = io.BytesIO()
    picture = Image.new(mode, (9, 7), 0)
    picture.paste(Image.new("RGBA", (4, 7), "white").convert(mode) if mode != "I;16" else 65535, (0, 0, 4, 7))
    picture.save(file, format)
    return file.getvalue()


def forms() -> list[bytes]:
    """Forms as the public clients send them."""
    file, mask = encoded("RGB", "PNG"), encoded("RGBA", "PNG")
    texts = [
        {"prompt": "a fox", "n": "2", "size": "512x512", "stream": "true", "response_format": "url"},
        {"prompt": "a fox", "loras": '[{"path": "a/b", "scale": 1}]', "seed": "-1", "strength": "0.5"},
        {"prompt": "a fox", "loras[][path]": "a/b", "loras[][scale]": "1", "quality": "high"},
        {"prompt": "a fox", "loras[0][path]": "a/b", "preprocess": "canny", "control_scale": "0.4"},
    ]
    files = [{"image": file}, {"image[]": file, "mask": mask}, {"image[0]": file}, {}]
    return [_form(text, pictures) for text in texts for pictures in files]


def _form(texts: dict[str, str], files: dict[str, bytes]) -> bytes:
    parts = [(f'name="{name}"', text.encode()) for name, text in texts.items()]
    parts += [(f'name="{name}"; filename="a.png"', data) for name, data in files.items()]
    heads = [f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() for head, _ in parts]
    bodies = [data + b"\r\n" for _, data in parts]
    return b"".join(head + body for head, body in zip(heads, bodies, strict=True)) + b"--b--\r\n"


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
    packages = ["PIL", "pi_heif", "python_multipart", "safetensors", "starlette", "app", "models", "worker"]
    with atheris.instrument_imports(include=packages, exclude=WITH_ARRAYS if target == "mask" else []):
        for module in ("models.weights.header", "worker.inputs.input_image", *WITH_ARRAYS):
            importlib.import_module(module)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()
