"""A step of the published size by stable-diffusion.cpp, its weights in q8_0, beside none of ours.

    python -m benchmarks.full_size.sdcpp FOLDER [--side 256] [--steps 3]

writes random weights by the names that it reads into FOLDER (20 GB, which it rounds as it loads them; the
autoencoder is the one that `python -m benchmarks.full_size` wrote) and makes a picture without control,
which it has not for this model. It belongs in an environment of its own:

    uv venv PEERS
    VIRTUAL_ENV=PEERS uv pip install -r requirements/worker.txt stable-diffusion-cpp-python==0.4.7
    PEERS/bin/python -m benchmarks.full_size.sdcpp FOLDER
"""

import os
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.full_size.weights import files_by_authors_names, write_files
from benchmarks.run import option_parser, write_row


def measure(folder: Path, side: int, steps: int) -> dict[str, Any]:
    """Seconds of a step after the first, and of the whole picture. Raises ImportError without it."""
    from stable_diffusion_cpp import StableDiffusion  # type: ignore[import-not-found]

    threads = os.cpu_count() or 1
    model = StableDiffusion(
        diffusion_model_path=str(folder / "sdcpp" / "transformer.safetensors"),
        llm_path=str(folder / "sdcpp" / "text_encoder.safetensors"),
        vae_path=str(folder / "model" / "vae" / "diffusion_pytorch_model.safetensors"),
        wtype="q8_0",
        n_threads=threads,
        diffusion_flash_attn=True,
        verbose=False,
    )
    ends: list[float] = []
    begun = time.perf_counter()
    model.generate_image(
        prompt="A lighthouse on a cliff at dusk, waves below, warm light in its lantern",
        width=side,
        height=side,
        sample_steps=steps,
        cfg_scale=1.0,
        seed=1,
        progress_callback=lambda *_: ends.append(time.perf_counter()),
    )
    picture = time.perf_counter() - begun
    # Called once before the first step as well.
    seconds = [late - early for early, late in pairwise(ends)][-(steps - 1) :]
    return {
        "threads": threads,
        "step_s": round(statistics.median(seconds), 2),
        "each_s": [round(each, 2) for each in seconds],
        "picture_s": round(picture, 1),
    }


def main(argv: list[str] | None = None) -> int:
    parser = option_parser("full_size.sdcpp", __doc__ or "")
    parser.add_argument("folder", help="where the weights are")
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, default=3, help="at least 2")
    options = parser.parse_args(argv)
    folder = Path(options.folder).expanduser().resolve()
    write_files(folder / "sdcpp", files_by_authors_names(), lambda done, total: None)
    figures = measure(folder, options.side, options.steps)
    write_row("sdcpp.jsonl", {"side": options.side, "steps": options.steps, **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
