"""What making pictures takes of this machine: packages, a GPU and LoRAs, found without importing torch."""

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from app.cli.exits import Exit, fail
from models.command import install
from models.errors import ModelError

if TYPE_CHECKING:
    from app.config import Settings
    from models.config import ModelSettings

GPU_PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "controlnet_aux")
MOST_NAMES = 20
"""A message names at most this number of LoRAs."""

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


def missing_packages() -> list[str]:
    """Names the packages of GPU_PACKAGES that are not installed here."""
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


def check_lora(name: str, settings: "Settings") -> None:
    """Ends the command for the name of a file that is not in the LoRA folder, and names those that are."""
    from models.errors import LoraError
    from models.weights.installed_loras import find_loras
    from models.weights.reference import LocalReference, ReferenceFault, read_reference
    from models.weights.resolve import find_local_lora

    try:
        reference = read_reference(name)
    except ReferenceFault:
        # Whoever looks for the file says what is wrong with its name.
        return
    if not isinstance(reference, LocalReference):
        return
    try:
        find_local_lora(reference.name, settings)
    except LoraError:
        there = [lora.path for lora in find_loras(settings) if lora.source != "hub"]
        more = f" and {len(there) - MOST_NAMES} more" if len(there) > MOST_NAMES else ""
        fail(
            f"--lora: There is no {reference.name!a} in the LoRA folder {settings.loras_path}; those that "
            f"there are: {', '.join(there[:MOST_NAMES]) or 'none'}{more}.",
            Exit.DATA,
        )


def check_published(settings: "ModelSettings") -> None:
    """Raises ModelError where this machine could not run the published model, which would be fetched for it.

    Found by a process beside, for PyTorch would stay in this one, and take some of the GPU.
    """
    # Not at the top: they would be a part of the time of every command.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            pool.submit(_plan_published, settings).result()
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"PyTorch does not work here: {error}") from error


def _plan_published(settings: "ModelSettings") -> None:
    from models.inference import forecast

    forecast.check_published(settings)
