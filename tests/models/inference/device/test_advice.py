"""A refusal names what would fit this machine, and doing as it says does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.errors import OutOfMemory
from models.inference.device.advice import decide_or_advise
from models.inference.device.placement import Placement
from models.inference.forecast import PUBLISHED
from models.inference.loading.copies import Copies

GIB = 2**30
BF16 = replace(PUBLISHED, cast=frozenset())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plans for a machine whose CPU multiplies bfloat16, its disk with room if nothing else is said."""
    monkeypatch.setattr("models.inference.device.advice.fast_type", lambda device: "bfloat16")

    def plan(
        device: str, free_gib: float, *, host: float = 64, disk: float = 100, **changes: Any
    ) -> Placement:
        monkeypatch.setattr("models.inference.loading.copies.spare_bytes", lambda folder: int(disk * GIB))
        copies = Copies(tmp_path, changes.pop("max_bytes", 2**62))
        asked = {"footprint": BF16, "dtype": "auto", "quantization": "auto", "rest": "bfloat16", **changes}
        return decide_or_advise(
            device, int(free_gib * GIB), copies=copies, host_bytes=int(host * GIB), **asked
        )

    return plan


CPU = "set ZTURBO_DEVICE=cpu, where a picture takes minutes"
DISK = r"free \d+\.\d GB on the disk of .* for copies of the weights"
DEMO = "use ZTURBO_MODEL=demo, which needs next to none"


@pytest.mark.parametrize(
    ("machine", "advice"),
    [
        ({"device": "cpu", "free_gib": 1}, "stop what else takes memory"),
        ({"device": "cpu", "free_gib": 3}, "stop what else takes memory"),
        # float32 files, and a full disk.
        ({"device": "cpu", "free_gib": 14, "disk": 2, "footprint": PUBLISHED}, DISK),
        (
            {"device": "cpu", "free_gib": 16, "dtype": "bfloat16", "footprint": PUBLISHED, "disk": 2},
            "set ZTURBO_DTYPE=auto",
        ),
        (
            {"device": "cpu", "free_gib": 14, "max_bytes": 10**9, "footprint": PUBLISHED},
            r"set ZTURBO_MAX_CACHE_BYTES=12\d{9}",
        ),
        # Macs of 16 and 24 GB.
        ({"device": "mps", "free_gib": 10.6, "host": 10.6}, CPU),
        (
            {"device": "mps", "free_gib": 10.6, "host": 10.6, "disk": 2, "footprint": PUBLISHED},
            f"{DISK} and {CPU}",
        ),
        ({"device": "mps", "free_gib": 16, "dtype": "bfloat16"}, f"set ZTURBO_DTYPE=auto, or {CPU}"),
        ({"device": "mps", "free_gib": 16, "quantization": "off"}, f"set ZTURBO_QUANTIZATION=auto, or {CPU}"),
        # Small cards, and small hosts.
        ({"device": "cuda", "free_gib": 3}, CPU),
        ({"device": "cuda", "free_gib": 3, "quantization": "fp8"}, f"set ZTURBO_QUANTIZATION=auto and {CPU}"),
        ({"device": "cuda", "free_gib": 4.2}, f"set ZTURBO_QUANTIZATION=int8, or {CPU}"),
        (
            {"device": "cuda", "free_gib": 12, "host": 12, "disk": 2, "footprint": PUBLISHED},
            f"{DISK}, or {DISK} and {CPU}",
        ),
        # An RTX 2070 in a machine of 16 GB, whose weights are copied in float16.
        (
            {"device": "cuda", "free_gib": 7.8, "host": 12, "disk": 20, "rest": "float16"},
            f"set ZTURBO_QUANTIZATION=int8, or {CPU}",
        ),
        (
            {"device": "cuda", "free_gib": 7.8, "host": 12, "disk": 10, "rest": "float16"},
            rf"free 16\.8 GB on the disk of .* for copies of the weights, or {CPU}",
        ),
        ({"device": "cuda", "free_gib": 12, "host": 1}, "stop what else takes memory"),
    ],
)
def test_model_that_does_not_fit_says_what_it_needs_and_what_would_fit(
    place: Any, machine: dict[str, Any], advice: str
) -> None:
    with pytest.raises(OutOfMemory, match=rf"needs \d+\.\d GB of .* GB are free: {advice}, or {DEMO}\.$"):
        place(**machine)


def test_disk_that_was_freed_as_a_refusal_says_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.loading.copies.spare_bytes", lambda folder: 3 * 10**9)
    size = 12_345_678_901
    copies = Copies(tmp_path)
    told = copies.lacks(size)
    assert told == f"free 13.4 GB on the disk of {tmp_path} for copies of the weights"
    monkeypatch.setattr("models.inference.loading.copies.spare_bytes", lambda folder: 3 * 10**9 + 134 * 10**8)
    assert copies.lacks(size) is None
