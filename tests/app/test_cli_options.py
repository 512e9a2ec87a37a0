"""The options that make a request, and the bodies they make."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli.options import build_bodies, flags_named, image_url


def test_what_is_not_given_is_left_to_the_server() -> None:
    [body] = build_bodies(
        image="https://example.com/a.png", mask="https://example.com/m.png", prompt="x", seed=None
    )
    assert body == {
        "prompt": "x",
        "image_url": "https://example.com/a.png",
        "mask_image_url": "https://example.com/m.png",
    }


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "image_url: is required; control_scale: must be less",
            "--image: is required; --control-scale: must be less",
        ),
        (
            "mask_image_url: the mask is 2x2 and the image in image_url 4x4; strength: must be less",
            "--mask: the mask is 2x2 and the image in --image 4x4; --strength: must be less",
        ),
        ("loras[1].scale: is required", "--lora, number 2: is required"),
        ("loras: at most 3", "--lora: at most 3"),
        ("image_url: no picture. loras[0].path: none", "--image: no picture. --lora, number 1: none"),
        ("No answer from http://seed: none", "No answer from http://seed: none"),
    ],
)
def test_flag_stands_for_the_field_in_a_sentence(said: str, shown: str) -> None:
    assert flags_named(said) == shown


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("a.safetensors", {"path": "a.safetensors"}),
        ("a.safetensors:2", {"path": "a.safetensors", "scale": 2.0}),
        ("owner/repo:file.safetensors", {"path": "owner/repo:file.safetensors"}),
        ("owner/repo:file.safetensors:.5", {"path": "owner/repo:file.safetensors", "scale": 0.5}),
        ("https://example.com/a.safetensors", {"path": "https://example.com/a.safetensors"}),
        ("https://example.com/a.safetensors:1", {"path": "https://example.com/a.safetensors", "scale": 1.0}),
    ],
)
def test_lora_scale_is_the_number_after_the_last_colon(text: str, entry: dict[str, Any]) -> None:
    [body] = build_bodies(lora=[text])
    assert body["loras"] == [entry]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "avif", "heif"])
def test_image_file_is_sent_as_a_data_uri_whatever_it_is_called(tmp_path: Path, kind: str) -> None:
    if kind == "heif":
        data = b"\0\0\0\x18ftypheic" + bytes(12)
    else:
        encoded = io.BytesIO()
        Image.new("RGB", (16, 16)).save(encoded, kind)
        data = encoded.getvalue()
    file = tmp_path / "photo.with.no.telling.name"
    file.write_bytes(data)
    said = kind.replace("heif", "heic")
    assert image_url(str(file)) == f"data:image/{said};base64,{base64.b64encode(data).decode()}"
