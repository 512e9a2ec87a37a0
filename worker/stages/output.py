"""The files that are made of a request's pixels, each kept under an id that its record names."""

from collections.abc import Mapping
from typing import Any

from models.job import OutputFormat, Pixels
from worker.encoding.encode import encode
from worker.storage.pictures import Storage


def image_stems(pictures: int) -> list[str]:
    """What each of so many pictures is called: in its record, and its file without the ending."""
    return ["image"] if pictures == 1 else [f"image-{place}" for place in range(1, pictures + 1)]


def keep_control(pixels: Pixels, file_id: str, storage: Storage) -> dict[str, Any]:
    """Keeps a control map, without loss; what is to be known of its file. Raises StorageError."""
    return keep_image("control", pixels, "png", None, file_id, storage)


def keep_image(
    stem: str,
    pixels: Pixels,
    output_format: OutputFormat,
    metadata: Mapping[str, Any] | None,
    file_id: str,
    storage: Storage,
) -> dict[str, Any]:
    """Keeps a (height, width, 3) picture as a file; what is to be known of that. Raises StorageError."""
    encoded = encode(pixels, output_format, metadata)
    name = f"{stem}.{encoded.extension}"
    storage.put(file_id, name, encoded.data)
    height, width = pixels.shape[:2]
    return {
        "file_id": file_id,
        "name": name,
        "content_type": encoded.content_type,
        "width": width,
        "height": height,
        "size": len(encoded.data),
    }
