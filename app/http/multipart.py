"""A picture that a caller sends in a multipart body: read with a limit, and decoded in its turn."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.errors import WrongBody, bad_field, quoted
from app.http.body import chunks, in_time
from models.errors import DiskFull
from worker.errors import ImageError
from worker.inputs.uploads import Upload
from worker.queue.requests import RequestStore
from worker.storage.pictures import Storage

T = TypeVar("T")
U = TypeVar("U", bound=Upload | None)

ENVELOPE_BYTES = 65_536
"""What the boundaries, headers and other fields around a file may take."""

UTF_8 = b"utf-8"
"""The one charset of a form. Python has others that take a minute for a megabyte, or give lone surrogates."""

DECODING = CapacityLimiter(2)
"""A picture of the largest size that is taken needs 600 MB for a moment, however small its file."""


async def read_file(request: Request, field: str, limit: int) -> bytes:
    """The bytes of the form's `field`. Raises BadInput, WrongBody, and BodyTooLarge past `limit` bytes."""
    async with open_form(request, field, limit, max_files=1, max_fields=10) as form:
        file = form.get(field)
        if not isinstance(file, UploadFile):
            raise bad_field(field, f"{field}: is required, as a file.")
        return await file.read()


@asynccontextmanager
async def open_form(
    request: Request, field: str, limit: int, max_files: int, max_fields: int
) -> AsyncIterator[FormData]:
    """The fields of a multipart body, the one with the picture being `field`. Raises as `read_file`."""
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise bad_field(field, f"{field}: send the picture as multipart/form-data, in the field `{field}`.")
    charset = parameters.get(b"charset", UTF_8)
    if charset.lower() != UTF_8:
        raise WrongBody(f"The form's text is in {quoted(charset.decode('latin-1'))}; send it in UTF-8.")

    async def stream() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks(request, limit + ENVELOPE_BYTES):
            yield chunk
        yield b""

    parser = MultiPartParser(request.headers, stream(), max_files=max_files, max_fields=max_fields)
    try:
        async with in_time():
            form = await parser.parse()
    except (MultiPartException, KeyError, ValueError):
        raise bad_field(field, f"{field}: the multipart body cannot be read.") from None
    try:
        yield form
    finally:
        await form.close()


async def take_upload(keep: Callable[[], U], owner: str, requests: RequestStore, storage: Storage) -> U:
    """Has `keep` keep an upload, and count towards what `owner` keeps, unless one is there (None).

    Raises what `keep_picture` does, StoreUnavailable, and DiskFull beyond what one key may keep.
    """
    spare = await to_thread.run_sync(storage.spare_bytes)
    upload = await keep_picture(keep)
    if upload is not None:
        try:
            await requests.count_upload(owner, upload.file_id, upload.size, spare)
        except DiskFull:
            await to_thread.run_sync(storage.delete, upload.file_id)
            raise
    return upload


async def keep_picture(keep: Callable[[], T]) -> T:
    """What `keep`, which decodes the form's `file`, returns. Raises BadInput for what is no picture."""
    try:
        return await to_thread.run_sync(keep, limiter=DECODING)
    except ImageError as error:
        raise bad_field("file", str(error)) from None
