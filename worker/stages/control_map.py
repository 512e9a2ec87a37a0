"""A control map alone: what would guide a picture, for somebody who wants to see it before the run."""

from typing import Protocol, get_args

import cv2
import numpy as np

from models.canny import canny, fit
from models.job import KeepGoing, OnStep, Pixels, Preprocess
from models.schema.inputs import PreprocessInput
from worker.config import WorkerSettings
from worker.inputs.decode import read_image
from worker.inputs.input_image import read_source
from worker.stages.output import keep_control
from worker.stages.size import drawn_size
from worker.stages.task import Advance, Engine, Finish, Task
from worker.storage.pictures import new_file_id

GLANCE = 64
"""Pixels a side that are enough to tell a photograph."""
DARK, BRIGHT = 40, 215
GROUND = 0.5
"""Of a map's pixels at least so many are its black or white ground."""
COLOURED = 8
"""Mean distance of a pixel's parts (0 to 255) above which a picture has colours; JPEG gives grey some."""


class ControlMapTask(Task[Pixels]):
    """A request for the depth or pose map of an image; canny needs no device and so no task."""

    def prepare(self, keep_going: KeepGoing) -> Advance:
        tools, record = self._tools, self.record
        asked = PreprocessInput.model_validate(tools.workspace.attach_pictures(record.id, record.input))
        image = read_source(asked.image_url, "image_url", tools.settings, tools.storage)
        source = control_source(image, asked, tools.settings)
        return Advance("generate", {"control": tools.workspace.save(record.id, self._token, source)})

    def generate(self, engine: Engine, keep_going: KeepGoing, on_step: OnStep) -> Pixels:
        source = self._tools.workspace.load(self.record.id, self.record.prepared["control"])
        return engine.control_map(self.record.input["preprocess"], source, keep_going)

    def keep(self, made: Pixels) -> Advance:
        name = self._tools.workspace.save(self.record.id, self._token, made)
        return Advance("finish", {"control_image": name, "file_ids": {"control_image": new_file_id()}})

    def finish(self) -> Finish:
        kept = self.record.generated
        control_image = self._tools.workspace.load(self.record.id, kept["control_image"])
        file_id = kept["file_ids"]["control_image"]
        return Finish({"control_image": keep_control(control_image, file_id, self._tools.storage)})


class ControlInput(Protocol):
    """The fields of an input that tell how an image guides the picture."""

    @property
    def preprocess(self) -> Preprocess: ...

    @property
    def image_size(self) -> str: ...


def control_source(image: bytes, asked: ControlInput, settings: WorkerSettings) -> Pixels:
    """The image at the output's size, for canny its map; for depth and pose the engine makes the map of it.

    `image` is the file that `image_url` stands for. Raises ImageError and SizeError.
    """
    # A map's ground is black; a photograph without one is seen on white.
    source = read_image(image, "image_url", "black" if asked.preprocess == "none" else "white")
    width, height = drawn_size(asked.image_size, (source.shape[1], source.shape[0]), settings)
    return (canny if asked.preprocess == "canny" else fit)(source, width, height)


def map_warnings(image: bytes, asked: ControlInput, control: Pixels) -> list[str]:
    """What a result says of an image that is taken for a map as it is. `control`: its `control_source`."""
    if asked.preprocess != "none":
        return []
    warnings = []
    white = read_image(image, "image_url")
    if not np.array_equal(white, read_image(image, "image_url", "black")):
        warnings.append("The image is transparent in parts, which are black in the control map.")
    if looks_like_photograph(control):
        modes = ", ".join(mode for mode in get_args(Preprocess) if mode != "none")
        warnings.append(
            "The image looks like a photograph, not like a control map; preprocess makes a map of it: "
            f"{modes}."
        )
    return warnings


def looks_like_photograph(pixels: Pixels) -> bool:
    """Whether a picture has colours and no ground of one shade, as app/playground/js/photo.js tells it.

    Edges, lines and skeletons have the ground, depth is grey.
    """
    small = cv2.resize(pixels, (GLANCE, GLANCE), interpolation=cv2.INTER_AREA)
    most, least = small.max(2), small.min(2)
    ground = max((most < DARK).mean(), (least > BRIGHT).mean())
    return bool((most - least).mean() > COLOURED and ground < GROUND)
