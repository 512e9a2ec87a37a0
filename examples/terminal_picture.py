"""A picture in the terminal: in kitty's, iTerm's or sixel graphics where it has them, else as half blocks."""

import base64
import io
import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Mapping
from itertools import groupby
from typing import Final, Literal

import numpy as np
from PIL import Image

Graphics = Literal["kitty", "iterm", "sixel", "blocks"]
KITTY: Final = ("kitty", "ghostty", "wezterm")
CHUNK: Final = 4096
"""Base64 characters that kitty takes at a time."""
BLOCK_COLUMNS: Final = 64
ANSWER_SECONDS: Final = 0.3
_ASK_ATTRIBUTES: Final = b"\x1b[c"
_SIXEL_ATTRIBUTE: Final = "4"


def graphics(environment: Mapping[str, str], attributes: str) -> Graphics:
    """What the terminal shows pictures by, from its variables and its answer to `device_attributes`.

    Inside tmux and screen the variables are those of the terminal around them, which never sees what is
    printed here: only what they answer themselves counts.
    """
    term = environment.get("TERM", "")
    program = environment.get("TERM_PROGRAM", "").lower()
    if not term.startswith(("tmux", "screen")):
        if program in KITTY or term.removeprefix("xterm-") in KITTY:
            return "kitty"
        if program == "iterm.app" or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm"
    answer = re.search(r"\x1b\[\?([\d;]*)c", attributes)
    return "sixel" if answer and _SIXEL_ATTRIBUTE in answer[1].split(";") else "blocks"


def device_attributes() -> str:
    """What the terminal on standard input answers when asked what it is; empty when it says nothing."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return ""
    before = termios.tcgetattr(sys.stdin)
    answer = b""
    try:
        tty.setcbreak(sys.stdin)
        os.write(sys.stdout.fileno(), _ASK_ATTRIBUTES)
        end = time.monotonic() + ANSWER_SECONDS
        while not answer.endswith(b"c") and select.select([sys.stdin], [], [], end - time.monotonic())[0]:
            answer += os.read(sys.stdin.fileno(), 64)
            if time.monotonic() > end:
                break
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
    return answer.decode("ascii", "replace")


def drawn(picture: Image.Image, by: Graphics, columns: int = BLOCK_COLUMNS) -> str:
    """What to print for the terminal to show the picture; half blocks are at most `columns` wide."""
    picture = picture.convert("RGB")
    match by:
        case "kitty":
            return _kitty(_base64_png(picture))
        case "iterm":
            return f"\x1b]1337;File=inline=1:{_base64_png(picture)}\x07\n"
        case "sixel":
            return _sixel(picture)
        case "blocks":
            return _blocks(picture, min(columns, BLOCK_COLUMNS))


def _base64_png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _kitty(data: str) -> str:
    """kitty's graphics protocol: PNG (f=100), shown at once (a=T), in chunks; all but the last say m=1."""
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    heads = ["a=T,f=100,", *[""] * (len(chunks) - 1)]
    more = [*[1] * (len(chunks) - 1), 0]
    return (
        "".join(
            f"\x1b_G{head}m={rest};{chunk}\x1b\\"
            for head, rest, chunk in zip(heads, more, chunks, strict=True)
        )
        + "\n"
    )


def _sixel(picture: Image.Image) -> str:
    """DEC's sixel graphics: bands of six rows, in each a row of run lengths for every colour in it."""
    small = picture.quantize(255)
    pixels = np.asarray(small)
    palette = np.asarray(small.getpalette("RGB")).reshape(-1, 3) * 100 // 255
    height, width = pixels.shape
    parts = [f'\x1bPq"1;1;{width};{height}']
    parts += [f"#{at};2;{red};{green};{blue}" for at, (red, green, blue) in enumerate(palette)]
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        weights = (1 << np.arange(len(band)))[:, None]
        for colour in np.unique(band):
            bits = ((band == colour) * weights).sum(0)
            runs = ((value, len(list(run))) for value, run in groupby(bits.tolist()))
            parts.append(f"#{colour}" + "".join(f"!{count}{chr(63 + value)}" for value, count in runs) + "$")
        parts.append("-")
    return "".join(parts) + "\x1b\\\n"


def _blocks(picture: Image.Image, columns: int) -> str:
    """A cell for each two pixels: the upper in the colour of the half block, the lower in that behind it."""
    rows = max(1, round(columns * picture.height / picture.width / 2))
    pixels = np.asarray(picture.resize((columns, 2 * rows), Image.Resampling.BOX)).tolist()
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{a};{b};{c};48;2;{d};{e};{f}m▀"
            for (a, b, c), (d, e, f) in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)
