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
from models.weights.reference import ReferenceFault, read_reference
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


IMAGE_SHA256 = hashlib.sha256(b"the bytes of an image file").hexdigest()

BODY = {
    "prompt": "a red cube",
    "image_url": f"/v1/files/{'a1' * 16}/photo.png",
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
        image_sha256=IMAGE_SHA256,
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


def test_says_how_far_a_picture_went_from_its_image_and_which_mask_it_had():
    body = {**BODY, "mask_image_url": "https://example.com/mask.png?token=5ec2e7"}
    job = Job(prompt="a hat", width=16, height=16, strength=0.6, mask_sha256="cd" * 32)
    made = describe(MODEL_ID, body, job, Facts(model="m", seeds=(5,), prompt="a hat", strength=0.6), 5)
    assert made["strength"] == 0.6
    assert made["request"]["mask_image_url"] == f"sha256:{'cd' * 32}"
    assert read_as_a1111_does(parameters(made))[1]["Denoising strength"] == "0.6"
    assert described()["strength"] is None
    assert "Denoising" not in parameters(described())


def test_seed_variance_is_said_where_there_is_any():
    body = {**BODY, "num_images": 4, "seed_variance": 0.1}
    job = Job(prompt="a hat", width=16, height=16, seed_variance=0.1)
    made = describe(MODEL_ID, body, job, Facts(model="m", seeds=(5,), prompt="a hat"), 5)
    assert (made["seed_variance"], request_body({"zturbo": made})["seed_variance"]) == (0.1, 0.1)
    assert read_as_a1111_does(parameters(made))[1]["Seed variance"] == "0.1"
    assert "variance" not in json.dumps(described()) + parameters(described())


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
    kept = {**BODY, "image_url": f"sha256:{IMAGE_SHA256}"}
    assert request_body({"zturbo": described()}) == {**kept, "seed": 5}


def test_request_body_of_one_of_several_makes_it_alone():
    body = {**BODY, "num_images": 4, "seed": 3}
    kept = {**body, "image_url": f"sha256:{IMAGE_SHA256}"}
    assert request_body({"zturbo": described(body)}) == {**kept, "num_images": 1, "seed": 5}
    body["enable_prompt_expansion"] = True
    again = request_body({"zturbo": described(body, expanded_prompt="more words")})
    assert (again["prompt"], again["enable_prompt_expansion"]) == ("more words", False)


@pytest.mark.parametrize(
    "image_url",
    [
        f"/v1/files/{'5ec2e7' * 5}00/photo.png",
        f"https://pictures.example/v1/files/{'5ec2e7' * 5}00/photo.png",
        "https://api.telegram.org/file/bot5ec2e7:AAF/photos/file_1.jpg",
        "https://cdn.discordapp.com/attachments/1/2/x.png?ex=1&is=2&hm=5ec2e7",
        "https://www.dropbox.com/scl/fi/x.png?rlkey=5ec2e7&dl=1",
        "https://a.example/x.png?api-key=5ec2e7",
        "data:image/png;base64," + base64.b64encode(b"5ec2e7" * 1000).decode(),
    ],
)
def test_input_image_is_kept_as_the_sha256_of_its_file_only(image_url):
    made = described({**BODY, "image_url": image_url})

    assert made["request"]["image_url"] == f"sha256:{IMAGE_SHA256}"
    assert "5ec2e7" not in json.dumps(made) + parameters(made)
    assert len(json.dumps(made)) < 2000


def test_request_without_an_image_keeps_none():
    body = {name: value for name, value in BODY.items() if name != "image_url"}

    assert "image_url" not in described(body)["request"]


def test_prompt_that_looks_like_a_data_uri_is_kept():
    assert described({**BODY, "prompt": "data: a chart"})["request"]["prompt"] == "data: a chart"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://a.example/ink.safetensors", "a.example/.../ink.safetensors"),
        (
            "https://a.example:8443/bot5ec2e7/ink.safetensors?hm=5ec2e7",
            "a.example/.../ink.safetensors",
        ),
        ("https://civitai.com/api/download/models/123?token=5ec2e7", "civitai.com/.../123"),
        ("https://a.example/5ec2e7/", "a.example/.../"),
        ("me/style", "me/style"),
        ("me/style:folder/ink.safetensors", "me/style:folder/ink.safetensors"),
    ],
)
def test_url_of_a_lora_or_controlnet_keeps_its_host_and_last_part_only(url, kept):
    applied = AppliedLora(name=url, scale=1, sha256="0" * 64, matched=1, unmatched=0, format="peft")

    made = described({**BODY, "loras": [{"path": url, "scale": 1}]}, loras=(applied,), controlnet=url)

    assert made["request"]["loras"] == [{"path": kept, "scale": 1}]
    assert (made["loras"][0]["name"], made["control"]["controlnet"]) == (kept, kept)
    assert "5ec2e7" not in json.dumps(made) + parameters(made)


@pytest.mark.parametrize("url", ["https://a.example/ink.safetensors", "https://hub/owner/repo/x.safetensors"])
def test_what_is_kept_of_a_url_names_no_other_file(url):
    made = described({**BODY, "loras": [{"path": url, "scale": 1}]})

    with pytest.raises(ReferenceFault):
        read_reference(made["request"]["loras"][0]["path"])


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
