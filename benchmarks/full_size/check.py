"""Everything at the published size that has a bound, part by part, and what was missed.

| part | what it runs |
|---|---|
| `int8` `bfloat16` | the documented request with a LoRA in each, under a limit of 16 GiB |
| `12G` | the same under 12 GiB, where `auto` chooses: a second start, the copies in 8 bits are there |
| `steps` | a step at 256x256 and 512x512 beside diffusers' |
| `blocks` | a block beside OpenVINO's; needs the peers |
| `sdcpp` | a step at 256x256 in stable-diffusion.cpp's q8_0, beside the one of `steps`; needs the peers |
| `demo` | the demo model's pictures in 8 bits beside those in float32 |

Each is a process of its own, which adds rows to benchmarks/results.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import eight_bits, run
from benchmarks.full_size import steps

INT8_GB = 11
BFLOAT16_PRIVATE_GB = 4
SECOND_START_SECONDS = 20
LORA_SHARE = 0.05
"""A change of the LoRA set may take this share of a picture's seconds."""
SDCPP_RATIO = 0.12
DEMO_LEVELS = 1
"""Pixels of the demo's pictures may differ by so many levels of 255 on average."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Bound:
    name: str
    value: float
    most: float

    @property
    def met(self) -> bool:
        return self.value <= self.most

    def __str__(self) -> str:
        return f"{self.name:<64}{self.value:>8.3f}  at most {self.most:g}  {'met' if self.met else 'MISSED'}"


@dataclass(frozen=True)
class Part:
    arguments: tuple[str, ...]
    """What Python is started with after `-m`; FOLDER among it stands for where the weights are."""
    rows: str
    """The file of benchmarks/results that it adds to."""
    bounds: Callable[[Row], Iterable[Bound]]
    """Tells the bounds that one row is held to."""
    peers: bool = False


def _request(row: Row) -> Iterator[Bound]:
    limit = f"{row['dtype']}, limit of {row['memory_limit'] // 2**30} GiB"
    peak = {kind: max(row[at][kind] for at in ("start_peak", "picture_peak")) for kind in row["picture_peak"]}
    if row["dtype"] == "int8":
        yield Bound(f"{limit}: GB in all", sum(peak.values()), INT8_GB)
    if row["dtype"] == "bfloat16":
        yield Bound(f"{limit}: GB private", peak["private_gb"], BFLOAT16_PRIVATE_GB)
    yield Bound(f"{limit}: LoRA set, of the picture", row["timings"]["loras"] / row["picture_s"], LORA_SHARE)


def _second(row: Row) -> Iterator[Bound]:
    yield from _request(row)
    yield Bound("second start, seconds until ready", row["start_s"], SECOND_START_SECONDS)


def _steps(row: Row) -> Iterator[Bound]:
    for dtype, most in steps.BOUNDS.items():
        name = f"{dtype} to diffusers"
        yield Bound(f"a step at {row['side']} pixels, {name}", row[name], most)


def _blocks(row: Row) -> Iterator[Bound]:
    most = eight_bits.BOUNDS["int8 to openvino"]
    yield Bound(f"a block of {row['tokens']} tokens, int8 to OpenVINO", row["int8 to openvino"], most)


def _sdcpp(row: Row) -> Iterator[Bound]:
    ours = [each["int8, s"] for each in _rows("steps.jsonl") if each["side"] == row["side"]]
    if not ours:
        raise SystemExit("stable-diffusion.cpp's step has none of ours beside it: run the part `steps` first")
    yield Bound(f"a step at {row['side']} pixels, int8 to sd.cpp", ours[-1] / row["step_s"], SDCPP_RATIO)


def _demo(row: Row) -> Iterator[Bound]:
    yield Bound("demo model: pixels from float32's, of 255", row["pixels from float32's, mean"], DEMO_LEVELS)
    for verdict in ("colour as named", "object recognised"):
        name = f"{verdict}, less than float32's"
        yield Bound(f"demo model: {name}", row[name], 0)


def _documented(dtype: str, limit: str) -> tuple[str, ...]:
    return ("benchmarks.full_size", "FOLDER", "--lora", "--dtype", dtype, "--memory-limit", limit)


PARTS = {
    "int8": Part(_documented("int8", "16G"), "full_size.jsonl", _request),
    "bfloat16": Part(_documented("bfloat16", "16G"), "full_size.jsonl", _request),
    "12G": Part(_documented("auto", "12G"), "full_size.jsonl", _second),
    "steps": Part(("benchmarks.full_size.steps", "FOLDER", "--rounds", "2"), "steps.jsonl", _steps),
    "blocks": Part(
        ("benchmarks.eight_bits", "--openvino", "--rounds", "3"), "eight_bits.jsonl", _blocks, peers=True
    ),
    "sdcpp": Part(("benchmarks.full_size.sdcpp", "FOLDER"), "sdcpp.jsonl", _sdcpp, peers=True),
    "demo": Part(
        ("training.quality", "--quantization", "int8", "--count", "40"), "demo_quality.jsonl", _demo
    ),
}


def check(folder: Path, names: Iterable[str], peers: str | None) -> int:
    """Prints a line for each bound as it is known, and all in the end; 1 when one was missed.

    `peers` is the Python that has them. A part that ends with an error is missed.
    """
    bounds: list[Bound] = []
    for name in names:
        part = PARTS[name]
        if part.peers and peers is None:
            print(f"{name}: left out, no --peers were named", flush=True)
            continue
        before = len(_rows(part.rows))
        command = [peers if part.peers and peers else sys.executable, "-m", *part.arguments]
        print(f"== {name}", flush=True)
        status = subprocess.run([str(folder) if each == "FOLDER" else each for each in command]).returncode
        found = [bound for row in _rows(part.rows)[before:] for bound in part.bounds(row)]
        found.append(Bound(f"{name}: its exit status", status, 0))
        print(*found, sep="\n", flush=True)
        bounds += found
    print("== all", *bounds, sep="\n")
    return int(not all(bound.met for bound in bounds))


def _rows(name: str) -> list[Row]:
    path = run.RESULTS / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
