"""A 16-bit copy of a large float32 checkpoint, made once, so that the next start reads half the bytes.

The published transformer is stored as 24.6 GB of float32 and run as 12.3 GB of bfloat16.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from models.disk import spare_bytes
from models.inference.loading.tensors import DTYPES, Weights
from models.weights.header import header_bytes

WORTHWHILE_BYTES = 2**30
"""The least size of a checkpoint that is copied; smaller ones load fast enough as they are."""
SPARE_BYTES = 4 * 10**9
"""What a copy leaves on the disk above the floor of `models.disk`."""

NAMES = {DTYPES[name]: name for name in ("BF16", "F16")}
"""The 16-bit types that a copy may have, and the format's names of them."""

log = logging.getLogger(__name__)


def half_copy(files: Sequence[Path], dtype: torch.dtype, cache: Path) -> list[Path]:
    """The files to load instead of `files`: a copy in `dtype`, made now if need be, or `files` themselves.

    There is no copy where `dtype` is no 16-bit type, the files are small or not in float32, or the disk has
    no room.
    """
    weights = Weights(files)
    stored = sum(path.stat().st_size for path in files)
    if (
        dtype not in NAMES
        or stored < WORTHWHILE_BYTES
        or {place.info.dtype for place in weights.places.values()} != {"F32"}
    ):
        return list(files)
    copy = cache / f"{_key(files)}-{NAMES[dtype].lower()}.safetensors"
    if copy.is_file():
        # When it was last used: the quota of the caches goes by that.
        os.utime(copy)
        return [copy]
    cache.mkdir(parents=True, exist_ok=True)
    if spare_bytes(cache) < stored // 2 + SPARE_BYTES:
        log.warning("no room in %s for a %s copy of %s", cache, NAMES[dtype], files[0].parent)
        return list(files)
    log.info("keeping a %s copy of %s for the next start", NAMES[dtype], files[0].parent)
    _write(copy, weights, dtype)
    return [copy]


def _write(path: Path, weights: Weights, dtype: torch.dtype) -> None:
    """Write tensor by tensor into a file beside `path`, and rename that."""
    shapes = weights.shapes()
    descriptor, draft = tempfile.mkstemp(prefix=".draft-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header_bytes({name: (NAMES[dtype], shape) for name, shape in shapes.items()}))
            for name in shapes:
                tensor = weights.read(name).to(dtype).contiguous()
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).rename(path)
    finally:
        Path(draft).unlink(missing_ok=True)


def _key(files: Sequence[Path]) -> str:
    """A name that changes when one of the files does."""
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:16]
