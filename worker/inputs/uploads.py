"""Pictures that callers send here, to be named as `image_url` afterwards."""

import hashlib
import io
from typing import NamedTuple

from PIL import Image

from worker.errors import ImageError
from worker.inputs.decode import FORMATS, read_image
from worker.secret import Secret
from worker.storage.pictures import Storage


class Upload(NamedTuple):
    file_id: str
    name: str
    size: int
    """Bytes."""


def keep_upload(data: bytes, owner: str, secret: Secret, storage: Storage) -> Upload:
    """Keeps a picture as it was sent; the same bytes of the same owner are kept once, under the same id.

    Sent again, its time until it expires begins anew. Raises ImageError, StorageError and DiskFull.
    """
    name = f"upload.{_format(data)}"
    # Follows from the content, yet only this server can tell it: the id is the permission to read.
    file_id = secret.derive("upload", owner, hashlib.sha256(data).hexdigest())[:16].hex()
    storage.check_room(len(data))
    storage.put(file_id, name, data)
    return Upload(file_id, name, len(data))


def put_upload(data: bytes, file_id: str, name: str, storage: Storage) -> Upload | None:
    """Keeps a picture under an id and a name that were given out before it came.

    What is there stays; then the answer is None.
    Raises ImageError, also for a picture of another type than the name says, StorageError and DiskFull.
    """
    kind = _format(data)
    if name != f"upload.{kind}":
        raise ImageError(f"file: this is a picture of type {kind}, and was announced as {name}.")
    if storage.read(file_id, name) is not None:
        return None
    storage.check_room(len(data))
    storage.put(file_id, name, data)
    return Upload(file_id, name, len(data))


def _format(data: bytes) -> str:
    """The ending of the file's name, once all of the picture could be read. Raises ImageError."""
    read_image(data, "file")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # Telephones put further pictures behind the JPEG that is looked at.
        return "jpeg" if image.format == "MPO" else str(image.format).lower()
