"""What a picture's file says about how it was made, and what it must not say."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from models.job import AppliedLora, Facts, Job
from worker.encoding.metadata import describe, parameters, read_metadata, request_body
from worker.errors import ImageError

MODEL_ID = "tongyi-mai/z-image/turbo/controlnet/lora"

A1111_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""How AUTOMATIC1111's web UI reads the last line of `parameters`."""


def read_as_a1111_does(text: str) -> tuple[str, dict[str, str]]:
    prompt, _, settings = text.rpartition("\n")
    pairs = {
        name: json.loads(value) if value.startswith('"') else value
        for name, value in A1111_PAIR.findall(settings)
    }
    return prompt, pairs


BODY = {
    "prompt": "a red cube",
    "image_url": "https://example.com/photo.png",
    "loras": [{"path": "me/style", "scale": 0.5}],
    "preprocess": "canny",
    "seed": -1,
}


def described(body: dict = BODY, **changes: object) -> dict:
    job = Job(
        prompt=body["prompt"],
        width=768,
        height=1024,
        seed=5,
        control_scale=0.9,
        control_end=0.4,
        controlnet=Path("union.safetensors"),
    )
    values: dict = {
        "model": "Tongyi-MAI/Z-Image-Turbo",
        "seeds": (5,),
        "prompt": body["prompt"],
        "controlnet": "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union",
        "loras": (
            AppliedLora(name="me/style", scale=0.5, sha256="ab" * 32, matched=10, unmatched=0, format="peft"),
        ),
    }
    return describe(MODEL_ID, body, job, Facts(**{**values, **changes}), 5)


def test_says_what_made_the_picture():
    made = described()

    assert made["model_id"] == MODEL_ID
    assert made["model"] == "Tongyi-MAI/Z-Image-Turbo"
    assert (made["width"], made["height"], made["seed"], made["num_inference_steps"]) == (768, 1024, 5, 8)
    assert made["control"] == {
        "preprocess": "canny",
        "control_scale": 0.9,
        "control_start": 0.0,
        "control_end": 0.4,
        "controlnet": "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union",
    }
    assert made["loras"] == [{"name": "me/style", "scale": 0.5, "sha256": "ab" * 32}]


def test_picture_without_control_branch_says_no_control():
    assert described(controlnet=None)["control"] is None


def test_request_body_is_the_one_sent_with_the_seed_that_was_drawn():
    assert request_body({"zturbo": described()}) == {**BODY, "seed": 5}


def test_request_body_of_one_of_several_makes_it_alone():
    body = {**BODY, "num_images": 4, "seed": 3}
    assert request_body({"zturbo": described(body)}) == {**body, "num_images": 1, "seed": 5}
    body["enable_prompt_expansion"] = True
    again = request_body({"zturbo": described(body, expanded_prompt="more words")})
    assert (again["prompt"], again["enable_prompt_expansion"]) == ("more words", False)


def test_image_sent_in_the_request_is_kept_as_its_sha256_only():
    image = b"the bytes of an image file" * 1000
    body = {**BODY, "image_url": "data:image/png;base64," + base64.b64encode(image).decode()}

    made = described(body)

    assert made["request"]["image_url"] == "sha256:" + hashlib.sha256(image).hexdigest()
    assert len(json.dumps(made)) < 2000


def test_prompt_that_looks_like_a_data_uri_is_kept():
    assert described({**BODY, "prompt": "data: a chart"})["request"]["prompt"] == "data: a chart"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://a.example/x.png?width=3#top", "https://a.example/x.png?width=3#top"),
        ("https://a.example/x?type=Model&token=s3cret", "https://a.example/x?type=Model&token=withheld"),
        (
            "https://a.example/x?X-Amz-Signature=s3cret&v=1",
            "https://a.example/x?X-Amz-Signature=withheld&v=1",
        ),
        ("https://a.example/x?sig=s3cret", "https://a.example/x?sig=withheld"),
        (
            "https://a.example/x?api_key=s3cret&key=s3cret",
            "https://a.example/x?api_key=withheld&key=withheld",
        ),
        ("https://a.example/x?keyword=cat&design=1", "https://a.example/x?keyword=cat&design=1"),
    ],
)
def test_keys_in_a_url_are_withheld(url, kept):
    applied = AppliedLora(name=url, scale=1, sha256="0" * 64, matched=1, unmatched=0, format="peft")

    made = described({**BODY, "image_url": url, "loras": [{"path": url, "scale": 1}]}, loras=(applied,))

    assert made["request"]["image_url"] == made["request"]["loras"][0]["path"] == kept
    assert "s3cret" not in json.dumps(made) + parameters(made)


def test_parameters_are_read_by_other_tools():
    prompt, settings = read_as_a1111_does(parameters(described()))

    assert prompt == "a red cube"
    assert settings["Steps"] == "8"
    assert settings["Seed"] == "5"
    assert settings["Size"] == "768x1024"
    assert settings["Model"] == "Tongyi-MAI/Z-Image-Turbo"
    assert settings["Lora hashes"] == "me/style: ababababab"
    assert settings["Lora scales"] == "me/style: 0.5"
    assert settings["ControlNet 0"].startswith("Module: canny, Model: alibaba-pai/")
    assert settings["ControlNet 0"].endswith("Weight: 0.9, Guidance Start: 0, Guidance End: 0.4")
    assert settings["Version"].startswith("zturbo ")


def test_parameters_give_the_expanded_prompt_and_the_original_beside_it():
    text = parameters(
        described({**BODY, "prompt": 'a "red" cube, please'}, expanded_prompt="a cube\nin snow")
    )

    prompt, settings = read_as_a1111_does(text)

    assert prompt == "a cube\nin snow"
    assert settings["Original prompt"] == 'a "red" cube, please'


def test_another_tools_parameters_are_read_too():
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Seed: 1, Size: 8x8")
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)

    found = read_metadata(file.getvalue())

    assert found == {"parameters": "a cat\nSteps: 20, Seed: 1, Size: 8x8"}
    with pytest.raises(ImageError, match="does not say which request"):
        request_body(found)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(30)]
)
def test_file_that_is_no_picture_is_refused(data):
    with pytest.raises(ImageError, match="no PNG, JPEG or WebP"):
        read_metadata(data)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"request": 3, "seed": 1}'])
def test_broken_metadata_of_ours_is_refused(text):
    info = PngImagePlugin.PngInfo()
    info.add_text("zturbo", text)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)

    with pytest.raises(ImageError):
        request_body(read_metadata(file.getvalue()))
