"""The control map of an image before any request is made of it, without torch."""

from typing import Any, Literal

from models.preprocess import canny, fit
from models.sizes import output_size
from worker.config import WorkerSettings
from worker.images import read_image
from worker.sources import read_source
from worker.stages import keep_control
from worker.storage import Storage, new_file_id


def make_map(
    image_url: str,
    preprocess: Literal["none", "canny"],
    image_size: str,
    settings: WorkerSettings,
    storage: Storage,
) -> dict[str, Any]:
    """Keeps the map that a request with the same three fields would be guided by; its file.

    Raises FetchError, ImageError, SizeError and StorageError.
    """
    source = read_image(read_source(image_url, "image_url", settings, storage), "image_url")
    width, height = output_size(image_size, (source.shape[1], source.shape[0]))
    pixels = (canny if preprocess == "canny" else fit)(source, width, height)
    return keep_control(pixels, new_file_id(), storage)
