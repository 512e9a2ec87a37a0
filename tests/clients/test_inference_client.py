"""Hugging Face's own InferenceClient, given the address of a model here."""

import base64
import io
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from app.config import Settings
from tests.clients.conftest import OUTPUT
from tests.clients.test_openai import meanwhile, newest
from tests.contract.test_prechecks import FAULTY_MASKS, IMAGE
from tests.support.http_api import MODEL, PNG, WorkerHands
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage

TEXT_MODEL = "tongyi-mai/z-image/turbo"


@pytest.fixture(autouse=True)
def _stored(settings: Settings) -> None:
    Storage(open_objects(settings)).put("0" * 32, "image.png", PNG)


def client(base: str, model: str) -> InferenceClient:
    return InferenceClient(model=f"{base}/hf/{model}", token="any")


def test_picture_of_a_prompt(base: str, hands: WorkerHands) -> None:
    with meanwhile(hands, lambda: hands.succeed(OUTPUT)):
        picture = client(base, TEXT_MODEL).text_to_image(
            "a fox", width=500, height=700, num_inference_steps=4, seed=5, guidance_scale=1.0
        )
    assert picture.size == (2, 2)
    made = newest(base)["input"]
    assert (made["prompt"], made["image_size"], made["num_inference_steps"], made["seed"]) == (
        *("a fox", "496x704", 4, 5),
    )


def test_picture_that_an_image_guides(base: str, hands: WorkerHands) -> None:
    with meanwhile(hands, lambda: hands.succeed(OUTPUT)):
        picture = client(base, MODEL).image_to_image(
            PNG,
            prompt="a fox",
            target_size={"width": 512, "height": 768},
            preprocess="canny",
            seed_variance=0.1,
        )
    assert picture.size == (2, 2)
    made = newest(base)["input"]
    assert made == made | {"preprocess": "canny", "image_size": "512x768", "seed": -1, "loras": []}
    assert made["seed_variance"] == 0.1


def test_picture_that_an_image_becomes(base: str, hands: WorkerHands) -> None:
    with meanwhile(hands, lambda: hands.succeed(OUTPUT)):
        client(base, f"{TEXT_MODEL}/image-to-image").image_to_image(PNG, prompt="a fox", strength=0.4)
    made = newest(base)["input"]
    assert (made["strength"], made["image_size"]) == (0.4, "auto")


def test_bad_parameters_are_told(base: str) -> None:
    parameters: dict[str, Any]
    for parameters, words in (
        ({"width": 512}, "width and height go together"),
        ({"width": 99, "height": 512}, "must be at least 256"),
        ({"num_inference_steps": 9}, "num_inference_steps: must be at most 8"),
        ({"extra_body": {"num_images": 2}}, "an answer here has one picture"),
        ({"extra_body": {"seed_variance": "much"}}, "seed_variance: must be a number"),
    ):
        with pytest.raises(HfHubHTTPError, match=words) as error:
            client(base, TEXT_MODEL).text_to_image("a fox", **parameters)
        assert error.value.response.status_code == 422


def test_image_that_is_none_is_told_by_the_name_it_was_sent_under(base: str) -> None:
    with pytest.raises(HfHubHTTPError, match="inputs: "):
        client(base, MODEL).image_to_image(io.BytesIO(b"words").getvalue(), prompt="a fox")


def test_faulty_mask_is_told_in_one_sentence(base: str) -> None:
    inpainting = client(base, f"{TEXT_MODEL}/inpainting")
    image = base64.b64decode(IMAGE.partition(",")[2])
    for mask, words in FAULTY_MASKS:
        with pytest.raises(HfHubHTTPError, match="mask_image_url: ") as error:
            inpainting.image_to_image(image, prompt="a fox", mask_image_url=mask)
        told = error.value.response.json()
        assert (error.value.response.status_code, len(told["detail"])) == (422, 1)
        assert words.replace("IMAGE", "inputs") in told["error"]["message"]


def test_picture_that_cannot_be_fetched_is_told_by_the_name_it_was_sent_under(
    base: str, hands: WorkerHands
) -> None:
    body = {"inputs": "https://example.com/photo.jpg", "parameters": {"prompt": "a fox"}}
    with meanwhile(hands, lambda: hands.fail("fetch_failed", "image_url: nobody is there.")):
        answer = httpx.post(f"{base}/hf/{MODEL}", json=body, timeout=30)
    assert (answer.status_code, answer.json()["message"]) == (422, "inputs: nobody is there.")


def test_answer_says_what_was_ignored_and_changed(base: str, hands: WorkerHands) -> None:
    body = {"inputs": "a fox", "parameters": {"width": 500, "height": 704, "é": 1}}
    with meanwhile(hands, lambda: hands.succeed(OUTPUT | {"warnings": ["A size\nof its own: ½."]})):
        answer = httpx.post(f"{base}/hf/{TEXT_MODEL}", json=body, timeout=30)
    assert answer.headers["x-warnings"] == (
        "Unknown field '\\xe9' was ignored. size: 500x704 is off the model's grid; it is 496x704 here. "
        "A size of its own: \\xbd."
    )
