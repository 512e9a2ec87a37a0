"""What `make demo` prints is the picture, in whatever way the terminal shows pictures."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from examples.terminal_picture import CHUNK, drawn, graphics

RED, BLUE = (204, 0, 51), (0, 102, 255)
ASKED = "\x1b[?62;4;22c"


@pytest.fixture
def picture() -> Image.Image:
    """Red above, blue below, with a seam that lies inside a sixel's band."""
    image = Image.new("RGB", (10, 20), RED)
    image.paste(BLUE, (0, 8, 10, 20))
    return image


@pytest.mark.parametrize(
    ("environment", "attributes", "by"),
    [
        ({"TERM": "xterm-kitty"}, "", "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, ASKED, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "", "iterm"),
        ({"TERM": "tmux-256color", "LC_TERMINAL": "iTerm2"}, "\x1b[?1;2c", "blocks"),
        ({"TERM": "foot"}, ASKED, "sixel"),
        ({"TERM": "xterm"}, "\x1b[?64;14c", "blocks"),
        ({}, "", "blocks"),
    ],
)
def test_graphics_are_those_that_the_terminal_has(
    environment: dict[str, str], attributes: str, by: str
) -> None:
    assert graphics(environment, attributes) == by


def test_kitty_gets_the_png_in_chunks() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn(noise, "kitty"))
    assert [keys for keys, _ in parts] == ["a=T,f=100,m=1", *["m=1"] * (len(parts) - 2), "m=0"]
    assert max(len(data) for _, data in parts) == CHUNK
    with Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in parts)))) as sent:
        assert np.array_equal(np.asarray(sent), np.asarray(noise))


def test_iterm_gets_the_png(picture: Image.Image) -> None:
    data = drawn(picture, "iterm").removeprefix("\x1b]1337;File=inline=1:").removesuffix("\x07\n")
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert np.array_equal(np.asarray(sent), np.asarray(picture))


def test_sixels_are_the_picture(picture: Image.Image) -> None:
    text = drawn(picture, "sixel")
    head, *bands = text.removesuffix("-\x1b\\\n").split("-")
    head, first = head.split("$", 1)[0], head
    colours = {
        number: tuple(round(int(part) * 2.55) for part in parts)
        for number, *parts in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", first)
    }
    found = np.zeros((24, 10, 3), np.uint8)
    for at, band in enumerate([re.sub(r"^.*?(?=#\d+!)", "", first, flags=re.DOTALL), *bands]):
        for number, runs in re.findall(r"#(\d+)((?:!\d+[?-~])+)\$", band):
            x = 0
            for count, sixel in re.findall(r"!(\d+)([?-~])", runs):
                for bit in range(6):
                    if ord(sixel) - 63 >> bit & 1:
                        found[6 * at + bit, x : x + int(count)] = colours[number]
                x += int(count)
    assert np.array_equal(found[:20], np.asarray(picture))


def test_half_blocks_show_two_rows_a_line(picture: Image.Image) -> None:
    lines = drawn(picture, "blocks", columns=10).splitlines()
    assert len(lines) == 10
    colours = [re.findall(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", line) for line in lines]
    assert {len(line) for line in colours} == {10}
    assert colours[3][0] == tuple(map(str, RED + RED))
    assert colours[4][0] == tuple(map(str, BLUE + BLUE))
