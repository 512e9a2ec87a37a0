"""Pictures that callers send here, to be named as `image_url` afterwards."""

import hashlib
import io
from typing import NamedTuple

from PIL import Image

from worker.images import FORMATS, read_image
from worker.secret import Secret
from worker.storage import Storage


class Upload(NamedTuple):
    file_id: str
    name: str
    size: int
    """Bytes."""


def keep_upload(data: bytes, owner: str, secret: Secret, storage: Storage) -> Upload:
    """Keeps a picture as it was sent; the same bytes of the same owner are kept once, under the same id.

    Sent again, its time until it expires begins anew. Raises ImageError and StorageError.
    """
    read_image(data, "file")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        name = f"upload.{str(image.format).lower()}"
    # Follows from the content, yet only this server can tell it: the id is the permission to read.
    file_id = secret.derive("upload", owner, hashlib.sha256(data).hexdigest())[:16].hex()
    storage.put(file_id, name, data)
    return Upload(file_id, name, len(data))
