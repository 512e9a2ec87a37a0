"""A control branch that is loaded, and the version of the file that it came from."""

from pathlib import Path
from typing import Any, NamedTuple

from diffusers import ZImageControlNetModel
from torch import nn


class Version(NamedTuple):
    """A file as it is now: another value once it has changed."""

    path: Path
    mtime_ns: int
    size: int


class Branch(NamedTuple):
    """A control checkpoint as it was when it was loaded."""

    version: Version
    controlnet: ZImageControlNetModel

    @property
    def blocks(self) -> list[nn.Module]:
        """What runs at every step of it."""
        controlnet: Any = self.controlnet
        return [*controlnet.control_layers, *(controlnet.control_noise_refiner or ())]


def version_of(path: Path) -> Version:
    """The version of a file that there is now."""
    stat = path.stat()
    return Version(path, stat.st_mtime_ns, stat.st_size)
