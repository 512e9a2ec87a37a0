"""The detectors: networks that make depth and pose maps of a picture, at the output's own size."""

from models.canny import fit
from models.config import ModelSettings
from models.inference.control.annotators import Detector
from models.inference.control.depth import BACKENDS
from models.inference.control.openpose import load_openpose
from models.job import Pixels


class Detectors:
    """A depth network and a pose network, each loaded from this machine's disk on its first use.

    Raises `WeightsMissing` when a file is not there, `CheckpointError` when it is not what it should be.
    """

    def __init__(self, settings: ModelSettings, device: str) -> None:
        self._settings = settings
        self._device = device
        self._depth: Detector | None = None
        self._pose: Detector | None = None

    def drop(self) -> None:
        """Give up their memory; what is wanted again is loaded again."""
        self._depth = self._pose = None

    def depth(self, pixels: Pixels, width: int, height: int) -> Pixels:
        """Near is white, far is black, shape (height, width, 3)."""
        if self._depth is None:
            self._depth = BACKENDS[self._settings.depth_backend](self._device)
        return self._depth(fit(pixels, width, height))

    def pose(self, pixels: Pixels, width: int, height: int) -> Pixels:
        """Coloured skeletons on black, shape (height, width, 3); all black where nobody is seen."""
        if self._pose is None:
            self._pose = load_openpose(self._device)
        return self._pose(fit(pixels, width, height))
