"""What a caller names as the input image: a URL, a data URI, or a file uploaded to this server."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from worker.config import WorkerSettings
from worker.errors import FetchError
from worker.inputs.image_cache import ImageCache
from worker.storage.pictures import Storage

_OWN_FILE = re.compile(r"(?:https?://[^?#]+)?/v1/files/([0-9a-f]{32})/([^/?#]+)")
_DATA_URI = re.compile(r"data:[^,]*;\s*base64\s*,", re.IGNORECASE)
_HEAD_CHARACTERS = 200
_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n\f"
NO_SUCH_FILE = "there is no such file on this server; it may have expired."


def read_source(url: str, field: str, settings: WorkerSettings, storage: Storage) -> bytes:
    """The bytes that `url` stands for, at most `max_image_bytes`. Raises FetchError, naming `field`."""
    if url[:5].lower() == "data:":
        return read_data_uri(url, field, settings.max_image_bytes)
    uploaded = _read_own_file(url, storage)
    if uploaded is not None:
        return uploaded
    if url.startswith("/"):
        raise FetchError(f"{field}: {NO_SUCH_FILE}")
    try:
        return ImageCache(settings).get(url, field)
    except FetchError as error:
        if not is_own_file(url):
            raise
        raise FetchError(
            f"{error} If it is meant to be a file of this server's own: {NO_SUCH_FILE}"
        ) from None


def is_own_file(url: str) -> bool:
    """Whether `url` reads like a file of ours, under whatever host the caller knows us by."""
    return _OWN_FILE.fullmatch(url) is not None


def _read_own_file(url: str, storage: Storage) -> bytes | None:
    """A file of ours, whatever host the caller knows us by: its id is proof enough, nobody guesses one."""
    match = _OWN_FILE.fullmatch(url)
    return storage.read(match[1], match[2]) if match else None


def read_data_uri(url: str, field: str, max_bytes: int) -> bytes:
    """The bytes in a data URI as people write it: with line breaks or escapes, url-safe, without padding.

    Raises FetchError, naming `field`.
    """
    head = _DATA_URI.match(url[:_HEAD_CHARACTERS])
    if head is None:
        raise FetchError(f"{field}: a data URI must read data:image/…;base64,…")
    try:
        encoded = url[head.end() :].encode("ascii")
    except UnicodeEncodeError:
        raise FetchError(f"{field}: the data URI is not valid base64.") from None
    if b"%" in encoded:
        encoded = unquote_to_bytes(encoded)
    encoded = encoded.translate(_STANDARD, _WHITE_SPACE).rstrip(b"=")
    # Before decoding: three bytes for each four characters.
    if len(encoded) * 3 // 4 > max_bytes:
        raise FetchError(f"{field}: the file is larger than {max_bytes / 1e6:g} MB.")
    try:
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise FetchError(f"{field}: the data URI is not valid base64.") from None
