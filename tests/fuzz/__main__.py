"""Strangers' calls and strangers' bytes, made up at length: nothing may break or answer as is not documented.

    uv pip install --group fuzz
    python -m tests.fuzz [--examples 100] [--seconds 60] [--check]

Schemathesis calls a whole `zturbo serve` by its OpenAPI document, with a key and without one; then atheris
changes pictures, masks, data URIs, forms and safetensors headers, guided by the code that they reach. One run
is one row of benchmarks/results/fuzz.jsonl; `--check` fails when anything was found.
"""

import argparse
import sys
from typing import Any

from benchmarks.run import write_row
from tests.fuzz.api import call_everything
from tests.fuzz.target import TARGETS, feed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=100, help="calls of each operation and phase")
    parser.add_argument("--seconds", type=int, default=60, help="for each kind of bytes")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if options.examples:
        figures |= call_everything(options.examples, options.seed)
    if options.seconds:
        figures |= {name: feed(name, options.seconds, options.seed) for name in TARGETS}
    write_row("fuzz.jsonl", {"seed": options.seed} | figures)
    if options.check and any(each["found"] for each in figures.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
