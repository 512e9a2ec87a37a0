"""What it takes of this machine to make pictures, packages and a GPU, found without importing torch."""

import re
from importlib.util import find_spec

from app.cli.exits import Exit, fail
from models.command import install

GPU_PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "controlnet_aux")

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


def missing_packages() -> list[str]:
    """Those of GPU_PACKAGES that this installation has not."""
    return [name for name in GPU_PACKAGES if find_spec(name) is None]


def check_packages() -> None:
    """Ends the command where packages are missing, with the command that adds them."""
    if missing := missing_packages():
        fail(
            f"This installation lacks {', '.join(missing)}, so it makes no pictures: "
            f"`{install('gpu')}` brings them.",
            Exit.CONFIG,
        )


def check_device(device: str) -> None:
    """Ends the command where the setting is no device, or one of a GPU that is not here."""
    from models.gpus import gpu_present, visible_gpus

    if not _DEVICE.fullmatch(device):
        fail(f"--device: {device!r} is not auto, cpu, cuda, cuda:1 or mps.", Exit.USAGE)
    if device in ("auto", "cpu"):
        return
    kind, _, number = device.partition(":")
    if not gpu_present() or (kind == "cuda" and int(number or 0) >= len(visible_gpus())):
        fail(f"--device: this machine has no GPU for {device}; try --device cpu.", Exit.CONFIG)
