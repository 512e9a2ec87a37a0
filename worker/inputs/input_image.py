"""What a caller names as the input image: a URL, a data URI, or a file uploaded to this server."""

import base64
import binascii
import re

from worker.config import WorkerSettings
from worker.errors import FetchError
from worker.inputs.image_cache import ImageCache
from worker.storage.pictures import Storage

_OWN_FILE = re.compile(r"(?:https?://[^?#]+)?/v1/files/([0-9a-f]{32})/([^/?#]+)")
_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)


def read_source(url: str, field: str, settings: WorkerSettings, storage: Storage) -> bytes:
    """The bytes that `url` stands for, at most `max_image_bytes`. Raises FetchError, naming `field`."""
    if url[:5].lower() == "data:":
        return _decode_data_uri(url, field, settings.max_image_bytes)
    uploaded = _read_own_file(url, storage)
    if uploaded is not None:
        return uploaded
    if url.startswith("/"):
        raise FetchError(f"{field}: there is no such file on this server; it may have expired.")
    return ImageCache(settings).get(url, field)


def _read_own_file(url: str, storage: Storage) -> bytes | None:
    """A file of ours, whatever host the caller knows us by: its id is proof enough, nobody guesses one."""
    match = _OWN_FILE.fullmatch(url)
    return storage.read(match[1], match[2]) if match else None


def _decode_data_uri(url: str, field: str, max_bytes: int) -> bytes:
    head = _DATA_URI.match(url[:200])
    if head is None:
        raise FetchError(f"{field}: a data URI must read data:image/…;base64,…")
    encoded = url[head.end() :]
    # Before decoding: three bytes for each four characters.
    if len(encoded) * 3 // 4 > max_bytes + 2:
        raise FetchError(f"{field}: the file is larger than {max_bytes / 1e6:g} MB.")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise FetchError(f"{field}: the data URI is not valid base64.") from None
