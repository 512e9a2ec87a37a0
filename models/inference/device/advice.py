"""The plan for a model on this machine or, where none fits, what to change; planning tries each change."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from models.errors import OutOfMemory
from models.inference.device.devices import fast_type
from models.inference.device.placement import Placement, copy_bytes, decide
from models.inference.loading.copies import Copies
from models.inference.loading.footprint import Footprint


class Change(NamedTuple):
    """Something that a person can do, and what `decide` is asked for then."""

    words: str
    asked: Mapping[str, Any]


NO_CHANGE = Change("", {})
DEMO = "use ZTURBO_MODEL=demo, which needs next to none"


def decide_or_advise(
    device: str,
    free_bytes: int,
    footprint: Footprint,
    dtype: str,
    quantization: str,
    *,
    rest: str,
    copies: Copies,
    host_bytes: int,
) -> Placement:
    """Decides as `decide` does; raises `OutOfMemory` with what is needed, what is there and what would fit.

    Where there is room for the copies that the placement has, they are counted on from then on.
    """
    asked: dict[str, Any] = {
        "device": device,
        "free_bytes": free_bytes,
        "footprint": footprint,
        "dtype": dtype,
        "quantization": quantization,
        "rest": rest,
        "disk_bytes": copies.room(),
        "host_bytes": host_bytes,
    }
    try:
        placement = decide(**asked)
    except OutOfMemory as error:
        raise OutOfMemory(f"{error}: {_advice(asked, copies)}.") from None
    copies.are_counted_on = copy_bytes(footprint, placement) <= asked["disk_bytes"]
    return placement


def _advice(asked: dict[str, Any], copies: Copies) -> str:
    """The fewest changes with which the model fits its device, and those with which it fits the CPU."""
    settings = [name for name in ("dtype", "quantization") if asked[name] != "auto"]
    types = [NO_CHANGE]
    if settings:
        words = " and ".join(f"ZTURBO_{name.upper()}=auto" for name in settings)
        types.append(Change(f"set {words}", dict.fromkeys(settings, "auto")))
    if asked["quantization"] != "int8":
        types.append(Change("set ZTURBO_QUANTIZATION=int8", {"quantization": "int8"}))
    own = asked["rest"] if asked["dtype"] == "auto" else asked["dtype"]
    whole = Placement(asked["device"], own, "mapped")
    kinds = whole, replace(whole, eight_bits="int8")
    sizes = sorted({copy_bytes(asked["footprint"], kind) for kind in kinds})
    disks = [NO_CHANGE]
    disks += [Change(lacks, {"disk_bytes": size}) for size in sizes if (lacks := copies.lacks(size))]
    devices = [NO_CHANGE]
    if asked["device"] != "cpu":
        cpu = {"device": "cpu", "free_bytes": asked["host_bytes"], "rest": fast_type("cpu")}
        devices.append(Change("set ZTURBO_DEVICE=cpu, where a picture takes minutes", cpu))
    found = [_first_that_fits(asked, [device], disks, types) for device in devices]
    return ", or ".join([*filter(None, found)] or ["stop what else takes memory"]) + f", or {DEMO}"


def _first_that_fits(asked: dict[str, Any], *choices: list[Change]) -> str | None:
    """One of each of the choices, the fewest changes first; None where none fits."""
    for changes in sorted(product(*choices), key=_count):
        changed = dict(asked)
        for change in changes:
            changed |= change.asked
        if changed["device"] == "cpu" and changed["quantization"] == "fp8":
            continue
        try:
            decide(**changed)
        except OutOfMemory:
            continue
        return " and ".join(change.words for change in reversed(changes) if change.words)
    return None


def _count(changes: tuple[Change, ...]) -> int:
    return sum(bool(change.words) for change in changes)
