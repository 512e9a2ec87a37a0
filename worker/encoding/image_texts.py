"""Texts inside image files: written into PNG, JPEG and WebP, and read back.

Two texts: `parameters`, which other tools read, and `zturbo`, our own. A PNG keeps each as a chunk of that
name (`tEXt`, or `iTXt` where Latin-1 cannot say it). JPEG and WebP have Exif: `parameters` is the
UserComment, which is where other tools look for it, and `zturbo` the MakerNote.
"""

import io
import struct
import zlib
from typing import TypedDict

from PIL import Image

from worker.errors import ImageError


class Texts(TypedDict, total=False):
    parameters: str
    zturbo: str


MAX_JPEG_EXIF_BYTES = 65_533
"""What one JPEG segment holds, its own length field taken off."""

_SIGNATURE_AND_IHDR = 33
"""Bytes of a PNG before its second chunk."""

_UNICODE = b"UNICODE\0"
_MAKER = b"zturbo\0"
_EXIF_HEADER = b"Exif\0\0"
_EXIF_IFD, _EXIF_VERSION, _SOFTWARE = 0x8769, 0x9000, 0x0131
_MAKER_NOTE, _USER_COMMENT = 0x927C, 0x9286
_ASCII, _LONG, _UNDEFINED = 2, 4, 7


def png_with_texts(png: bytes, texts: Texts) -> bytes:
    """`png` with a text chunk for each of `texts`, before the pixels, where every reader finds them."""
    chunks = [_text_chunk(b"parameters", texts["parameters"]), _text_chunk(b"zturbo", texts["zturbo"])]
    return b"".join([png[:_SIGNATURE_AND_IHDR], *chunks, png[_SIGNATURE_AND_IHDR:]])


def exif(texts: Texts, software: str) -> bytes:
    """An Exif block, with its header, that holds `texts`; `software` is ASCII."""
    private = [(_EXIF_VERSION, _UNDEFINED, b"0232")]
    if "zturbo" in texts:
        private.append((_MAKER_NOTE, _UNDEFINED, _MAKER + texts["zturbo"].encode()))
    if "parameters" in texts:
        private.append((_USER_COMMENT, _UNDEFINED, _UNICODE + texts["parameters"].encode("utf-16-be")))
    program = (_SOFTWARE, _ASCII, software.encode("ascii") + b"\0")
    header = b"MM\0*" + struct.pack(">I", 8)
    # The private directory follows the first one, whose length does not depend on where that is.
    start = len(header) + len(_directory([program, (_EXIF_IFD, _LONG, bytes(4))], len(header)))
    first = _directory([program, (_EXIF_IFD, _LONG, struct.pack(">I", start))], len(header))
    return _EXIF_HEADER + header + first + _directory(private, start)


def jpeg_exif(texts: Texts, software: str) -> bytes:
    """The block of `exif`, without what does not fit a JPEG's one segment: `parameters` is left out first."""
    for kept in (texts, Texts(zturbo=texts["zturbo"])):
        block = exif(kept, software)
        if len(block) <= MAX_JPEG_EXIF_BYTES:
            return block
    return exif({}, software)


def read_texts(data: bytes) -> Texts:
    """The texts that an image file has, without decoding its pixels.

    Raises `ImageError` when `data` is no PNG, JPEG or WebP.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        private = image.getexif().get_ifd(_EXIF_IFD)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as fault:
        raise ImageError("The file is no PNG, JPEG or WebP picture that can be read.") from fault
    texts = Texts()
    comment, note = private.get(_USER_COMMENT), private.get(_MAKER_NOTE)
    if isinstance(comment, bytes) and comment.startswith(_UNICODE):
        texts["parameters"] = comment.removeprefix(_UNICODE).decode("utf-16-be", "replace")
    if isinstance(note, bytes) and note.startswith(_MAKER):
        texts["zturbo"] = note.removeprefix(_MAKER).decode("utf-8", "replace")
    if image.format == "PNG":
        if isinstance(text := image.info.get("parameters"), str):
            texts["parameters"] = text
        if isinstance(text := image.info.get("zturbo"), str):
            texts["zturbo"] = text
    return texts


def _text_chunk(keyword: bytes, text: str) -> bytes:
    try:
        return _chunk(b"tEXt", keyword + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        # After the keyword: not compressed, method 0, no language, no translated keyword.
        return _chunk(b"iTXt", keyword + b"\0\0\0\0\0" + text.encode())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _directory(fields: list[tuple[int, int, bytes]], start: int) -> bytes:
    """A TIFF directory that begins at byte `start` of the file, and the values too long to lie in it."""
    entries, values = b"", b""
    values_start = start + 2 + 12 * len(fields) + 4
    for tag, kind, value in fields:
        count = 1 if kind == _LONG else len(value)
        if len(value) <= 4:
            place = value.ljust(4, b"\0")
        else:
            place = struct.pack(">I", values_start + len(values))
            values += value + b"\0" * (len(value) % 2)
        entries += struct.pack(">HHI", tag, kind, count) + place
    return struct.pack(">H", len(fields)) + entries + bytes(4) + values
