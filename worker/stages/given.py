"""The pictures that a request names: fetched, checked, and brought to the output's size."""

import hashlib
from typing import NamedTuple

from models.canny import fit
from models.job import Pixels, Start
from models.schema.inputs import AnyInput
from worker.config import WorkerSettings
from worker.inputs.decode import read_image
from worker.inputs.input_image import read_source
from worker.inputs.mask import fit_mask, read_mask
from worker.stages.control_map import control_source
from worker.stages.size import drawn_size
from worker.storage.pictures import Storage


class Given(NamedTuple):
    """What a request's pictures come to; without any, the size alone."""

    size: tuple[int, int]
    """Width and height of the output."""
    image: bytes = b""
    """The file that `image_url` stands for."""
    image_sha256: str | None = None
    mask_sha256: str | None = None
    control: Pixels | None = None
    """What guides the picture, where the image does that."""
    start: Start | None = None
    """What the picture starts from, where `strength` says how far it goes."""


def read_pictures(request: AnyInput, settings: WorkerSettings, storage: Storage) -> Given:
    """Raises FetchError, ImageError, which name the field, and SizeError."""
    if request.image_url is None:
        return Given(drawn_size(request.image_size, (0, 0), settings))
    image = read_source(request.image_url, "image_url", settings, storage)
    digest = hashlib.sha256(image).hexdigest()
    if request.strength is None:
        control = control_source(image, request, settings)
        return Given((control.shape[1], control.shape[0]), image, digest, control=control)
    pixels = read_image(image, "image_url")
    whole = pixels.shape[1], pixels.shape[0]
    size = drawn_size(request.image_size, whole, settings)
    start = fit(pixels, *size)
    if request.mask_image_url is None:
        return Given(size, image, digest, start=Start(start))
    mask = read_source(request.mask_image_url, "mask_image_url", settings, storage)
    hole = fit_mask(read_mask(mask, "mask_image_url", whole), *size, "mask_image_url")
    return Given(size, image, digest, hashlib.sha256(mask).hexdigest(), start=Start(start, hole))
