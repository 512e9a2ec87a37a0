"""`python -m training`: trains the demo model stage by stage and writes its bundle. Run it again and it
goes on.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from training.presets import PRESETS
from training.runtime import Runtime
from training.stages import STAGES, Stages


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "stages", nargs="*", help=f"some of: {', '.join(STAGES)}; all, in order, when none is named"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("artifacts/training"), help="checkpoints, log, sheets"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--start", type=Path, help="bundle of the demo model whose weights to go on from; default: none"
    )
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="rendering processes"
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the training steps; little gain on a CPU"
    )
    parser.add_argument(
        "--bfloat16", action=argparse.BooleanOptionalAction, help="autocast; default: on a GPU"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts/demo-bundle"), help="where the bundle goes"
    )
    parser.add_argument(
        "--minutes", nargs="*", default=[], metavar="STAGE=MINUTES", help="train a stage longer or shorter"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    torch.set_float32_matmul_precision("high")
    bfloat16 = arguments.device == "cuda" if arguments.bfloat16 is None else arguments.bfloat16
    runtime = Runtime(arguments.device, arguments.workers, arguments.compile, bfloat16)
    minutes = {stage: float(number) for stage, _, number in (m.partition("=") for m in arguments.minutes)}
    preset = PRESETS[arguments.device]
    preset = replace(preset, minutes=preset.minutes | minutes)
    stages = Stages(preset, arguments.folder, arguments.out, runtime, arguments.start)
    for stage in arguments.stages or STAGES:
        stages.run(stage)


if __name__ == "__main__":
    main()
