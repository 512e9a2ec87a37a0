"""Serves the published size on this machine and makes the documented picture, under a limit of memory.

    python -m benchmarks.full_size FOLDER --memory-limit 16G [--lora] [--dtype int8]

writes random weights of the published layout into FOLDER (24 GB, a minute; what is there stays), starts
`zturbo serve` on them, sends the documented request with canny, ControlNet-Union and, with --lora, a LoRA,
and prints seconds and peak memory of each stage.

    python -m benchmarks.full_size FOLDER --check [--peers PYTHON] [--parts int8 steps …]

makes everything that has a bound (benchmarks/full_size/check.py), about half an hour on two cores, and exits
1 when one is missed. PYTHON is that of an environment with the peers, openvino, nncf and
stable-diffusion-cpp-python; without it the parts that need them are named as left out.
"""

import argparse
import re
import sys
from dataclasses import fields
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.full_size.check import PARTS, check
from benchmarks.full_size.request import Request, measure
from benchmarks.full_size.weights import write_all
from benchmarks.run import option_parser, write_row


def main() -> int:
    options = _options()
    folder = Path(options.folder).expanduser().resolve()
    _write(folder, options.union)
    if options.write_only:
        return 0
    if options.check:
        return check(folder, options.parts, options.peers)
    request = Request(**{field.name: getattr(options, field.name) for field in fields(Request)})
    write_row("full_size.jsonl", {"union": options.union, **vars(request), **measure(folder, request)})
    return 0


def _options() -> argparse.Namespace:
    parser = option_parser("full_size", __doc__ or "", check="when a bound is missed")
    parser.add_argument("folder", help="where the weights are, or are written: outside the repository")
    parser.add_argument("--write-only", action="store_true", help="write the weights and stop")
    parser.add_argument("--union", default="1.0", choices=("1.0", "2.0", "2.1", "2.1-lite"))
    parser.add_argument("--side", type=int, default=512, help="pixels of a side of the picture")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dtype", default="auto", help="ZTURBO_DTYPE of the server, or int8")
    parser.add_argument("--lora", action="store_true", help="with a LoRA of rank 32")
    parser.add_argument(
        "--memory-limit", type=_bytes, default=16 * 2**30, metavar="16G", help="of all processes"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="of --check; all by default"
    )
    parser.add_argument("--peers", metavar="PYTHON", help="with openvino, nncf, stable-diffusion-cpp-python")
    return parser.parse_args()


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)G", text)
    if found is None:
        raise argparse.ArgumentTypeError("a number of GiB: 16G")
    return int(found[1]) * 2**30


def _write(folder: Path, union: str) -> None:
    columns = (TextColumn("writing random weights"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("weights", total=None)
        write_all(folder, union, lambda done, total: progress.update(task, completed=done, total=total))


if __name__ == "__main__":
    sys.exit(main())
