"""OpenAI's own Python client, as it is on PyPI: only its base URL is another."""

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.config import Settings
from app.main import create_app
from tests.clients.conftest import OUTPUT
from tests.support.http_api import MODEL, PNG, WorkerHands, served
from tests.support.processes import wait_for
from worker.encoding.encode import encode_preview
from worker.inputs.decode import read_image
from worker.inputs.input_image import read_data_uri
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage

openai = pytest.importorskip("openai", reason="openai is not installed")

TEXT_MODEL = "tongyi-mai/z-image/turbo/lora"
TWO = {**OUTPUT, "images": [OUTPUT["image"]] * 2, "seeds": [7, 8]}


@pytest.fixture
def client(base: str, settings: Settings) -> Iterator[Any]:
    Storage(open_objects(settings)).put("0" * 32, "image.png", PNG)
    with openai.OpenAI(base_url=f"{base}/v1", api_key="any") as client:
        yield client


@contextmanager
def meanwhile(hands: WorkerHands, work: Callable[[], object]) -> Iterator[None]:
    """`work` is done as soon as something waits."""

    def run() -> None:
        wait_for(lambda: hands.client.zcard("zturbo:line"))
        work()

    with ThreadPoolExecutor() as pool:
        running = pool.submit(run)
        yield
        running.result()


def newest(base: str) -> dict[str, Any]:
    record: dict[str, Any] = httpx.get(f"{base}/v1/requests").json()["requests"][0]
    return record


def test_picture_is_in_the_answer(client: Any, base: str, hands: WorkerHands) -> None:
    with meanwhile(hands, lambda: hands.succeed(OUTPUT)):
        made = client.images.generate(
            model="gpt-image-1",
            prompt="a fox",
            size="500x700",
            quality="high",
            user="ann",
            extra_body={
                "num_inference_steps": 4,
                "loras": [{"path": "owner/repo", "scale": 0.5}],
                "seed_variance": 0.1,
                "x": 1,
            },
        )
    (picture,) = made.data
    assert (base64.b64decode(picture.b64_json), picture.url, made.size) == (PNG, None, "512x512")
    record = newest(base)
    assert record["model_id"] == TEXT_MODEL
    assert record["input"] == {
        "prompt": "a fox",
        "loras": [{"path": "owner/repo", "scale": 0.5}],
        "image_size": "496x704",
        "num_inference_steps": 4,
        # Not the hosted endpoint's own default, by which a chat would always get one picture.
        "seed": -1,
        "num_images": 1,
        "seed_variance": 0.1,
        "enable_prompt_expansion": False,
        "output_format": "png",
    }
    assert made.warnings == [
        "Unknown field 'x' was ignored.",
        "size: 500x700 is off the model's grid; it is 496x704 here.",
    ]


def test_urls_of_several_pictures_are_given_if_asked_for(client: Any, base: str, hands: WorkerHands) -> None:
    with meanwhile(hands, lambda: hands.succeed(TWO)):
        made = client.images.generate(
            model="tongyi-mai/z-image/turbo", prompt="a fox", n=2, size="auto", response_format="url"
        )
    assert [picture.url for picture in made.data] == [f"{base}/v1/files/{'0' * 32}/image.png"] * 2
    record = newest(base)
    assert (record["model_id"], record["input"]["num_images"]) == ("tongyi-mai/z-image/turbo", 2)
    assert record["input"]["image_size"] == "square_hd"


def test_stream_has_the_partial_images_and_the_picture(client: Any, hands: WorkerHands) -> None:
    preview = encode_preview(np.zeros((8, 8, 3), np.uint8))
    events = []

    def work() -> None:
        running, token = hands.generate()
        for step, expected in ((2, 0), (4, 1), (5, 1), (8, 2)):
            hands.work_queue.beat(running.id, token, step, 8, preview)
            wait_for(lambda expected=expected: len(events) >= expected)
        hands.end(running.id, token, OUTPUT)

    with meanwhile(hands, work):
        for event in client.images.generate(model="x", prompt="a fox", stream=True, partial_images=2):
            events.append(event)
    assert [event.type.removeprefix("image_generation.") for event in events] == [
        *("partial_image", "partial_image", "completed")
    ]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert base64.b64decode(events[0].b64_json)[:2] == b"\xff\xd8"
    assert base64.b64decode(events[2].b64_json) == PNG
    assert (events[2].size, events[2].usage.total_tokens) == ("512x512", 0)


def test_stream_without_news_has_comments(
    client: Any, base: str, hands: WorkerHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.http.events.COMMENT_SECONDS", 0.02)
    body = {"prompt": "a fox", "stream": True}
    with httpx.stream("POST", f"{base}/v1/images/generations", json=body) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith(":")
        hands.succeed(OUTPUT)
        assert "event: image_generation.completed" in list(lines)


def test_failure_in_a_stream_is_an_error_of_the_client(client: Any, hands: WorkerHands) -> None:
    with (
        meanwhile(hands, lambda: hands.fail("hub_error", "loras[0].path: nobody is there.")),
        pytest.raises(openai.APIError, match="nobody is there"),
    ):
        list(client.images.generate(model="x", prompt="a fox", stream=True))


def test_bad_input_is_told_once_with_its_field(client: Any, hands: WorkerHands) -> None:
    for fields, param, words in (
        ({"prompt": ""}, "prompt", "prompt: must not be empty"),
        ({"n": 5}, "n", "n: must be at most 4"),
        ({"size": "4096x4096"}, "size", "size: must be auto or WIDTHxHEIGHT"),
        ({"size": "big"}, "size", "size: must be auto or WIDTHxHEIGHT"),
        ({"partial_images": 4}, "partial_images", "partial_images: must be at most 3"),
        ({"extra_body": {"num_inference_steps": 9}}, "num_inference_steps", "must be at most 8"),
        ({"model": MODEL}, "image_url", "image_url: is required"),
        ({"extra_body": {"loras": [{"path": "none.safetensors"}]}}, "loras[0].path", "LoRA folder"),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=words) as error:
            client.images.generate(**{"model": "x", "prompt": "a fox"} | fields)
        told = (error.value.param, error.value.type, error.value.code)
        assert told == (param, "invalid_request_error", "422001")
    assert hands.client.zcard("zturbo:line") == 0


@pytest.mark.parametrize(
    ("error_type", "status"), [("hub_error", 422), ("internal_error", 500), ("worker_crashed", 500)]
)
def test_failed_request_is_told_and_not_sent_again(
    client: Any, hands: WorkerHands, error_type: str, status: int
) -> None:
    with (
        meanwhile(hands, lambda: hands.fail(error_type, "It did not work.")),
        pytest.raises(openai.APIStatusError, match="It did not work") as error,
    ):
        client.images.generate(model="x", prompt="a fox")
    assert error.value.status_code == status
    assert len(hands.client.keys("zturbo:req:*")) == 1


def test_picture_that_is_not_there_in_time_goes_on_and_is_not_asked_for_again(
    client: Any, hands: WorkerHands
) -> None:
    with pytest.raises(openai.InternalServerError, match="not done within") as error:
        client.images.generate(model="x", prompt="a fox", extra_query={"wait": "0.1"})
    assert error.value.status_code == 504
    (waiting,) = hands.client.zrange("zturbo:line", 0, -1)
    assert f"GET /v1/requests/{waiting}/result has it" in str(error.value)
    assert len(hands.client.keys("zturbo:req:*")) == 1


def test_call_with_a_key_that_is_sent_again_for_want_of_time_gets_the_same_picture(
    client: Any, hands: WorkerHands
) -> None:
    def make() -> None:
        # The client has given up the first call by then.
        time.sleep(0.4)
        hands.succeed(OUTPUT)

    again = client.with_options(timeout=0.2, max_retries=5)
    with meanwhile(hands, make):
        made = again.images.generate(model="x", prompt="a fox", extra_headers={"Idempotency-Key": "fox 1"})
    assert len(made.data) == 1
    assert len(hands.client.keys("zturbo:req:*")) == 1


def mask(mode: str, size: tuple[int, int] = (2, 2), alpha: int = 0) -> bytes:
    file = io.BytesIO()
    picture = Image.new(mode, size, "black")
    if mode == "RGBA":
        picture.putpixel((1, 0), (0, 0, 0, alpha))
    picture.save(file, "PNG")
    return file.getvalue()


def test_image_alone_is_changed_and_a_masks_transparent_part_is_drawn_anew(
    client: Any, base: str, hands: WorkerHands
) -> None:
    with meanwhile(hands, lambda: hands.succeed(OUTPUT)):
        client.images.edit(
            model="gpt-image-1", image=("a.png", PNG), prompt="a fox", extra_body={"strength": 0.3}
        )
    record = newest(base)
    assert record["model_id"] == "tongyi-mai/z-image/turbo/image-to-image/lora"
    assert (record["input"]["strength"], record["input"]["image_size"]) == (0.3, "auto")
    with meanwhile(hands, lambda: hands.succeed(OUTPUT)):
        # A text model cannot take a mask.
        client.images.edit(
            model=TEXT_MODEL, image=("a.png", PNG), mask=("m.png", mask("RGBA")), prompt="a fox"
        )
    record = newest(base)
    assert record["model_id"] == "tongyi-mai/z-image/turbo/inpainting/lora"
    white = read_image(read_data_uri(record["input"]["mask_image_url"], "", 10_000), "")
    assert (white == 255).all(axis=2).tolist() == [[False, True], [False, False]]


def test_caller_who_leaves_a_stream_cancels(client: Any, base: str, hands: WorkerHands) -> None:
    with client.images.generate(model="x", prompt="a fox", stream=True):
        wait_for(lambda: hands.client.zcard("zturbo:line"))
    wait_for(lambda: newest(base)["status"] == "cancelled")


def test_image_of_a_form_guides_the_picture(client: Any, base: str, hands: WorkerHands) -> None:
    with meanwhile(hands, lambda: hands.succeed(OUTPUT)):
        made = client.images.edit(
            model="gpt-image-1",
            image=("a.png", io.BytesIO(PNG)),
            prompt="8",
            n=1,
            size="512x512",
            extra_body={
                "preprocess": "canny",
                "control_scale": 0.5,
                "seed": 3,
                "enable_prompt_expansion": True,
                "loras": [{"path": "owner/one", "scale": 0.5}, {"path": "owner/two", "scale": 1}],
            },
        )
    assert base64.b64decode(made.data[0].b64_json) == PNG
    record = newest(base)
    assert record["model_id"] == MODEL
    encoded = base64.b64encode(PNG).decode()
    assert record["input"] == {
        "prompt": "8",
        "image_url": f"data:image/png;base64,{encoded}",
        "loras": [{"path": "owner/one", "scale": 0.5}, {"path": "owner/two", "scale": 1.0}],
        "image_size": "512x512",
        "control_scale": 0.5,
        "control_start": 0.0,
        "control_end": 0.4,
        "preprocess": "canny",
        "num_inference_steps": 8,
        "seed": 3,
        "num_images": 1,
        "enable_prompt_expansion": True,
        "output_format": "png",
    }


def test_bad_form_is_told_with_its_field(client: Any) -> None:
    good = {"image": ("a.png", PNG), "prompt": "a fox", "extra_body": {"preprocess": "canny"}}
    for fields, param, words in (
        ({"image": ("a.png", b"words")}, "image", "image: "),
        ({"image": [("a.png", PNG), ("b.png", PNG)]}, "image", "image: 2 are sent, and one is meant"),
        (
            {"extra_body": {"preprocess": "canny", "control_scale": "much"}},
            "control_scale",
            "must be a number",
        ),
        ({"extra_body": {"preprocess": "canny", "loras": "none"}}, "loras", "must be a list"),
        (
            {"extra_body": {"loras": [{"path": "owner/one"}, {"path": "owner/two", "scale": 2}]}},
            "loras",
            "say the scale of each",
        ),
        ({"n": "many"}, "n", "n: must be an integer"),
        ({"extra_body": {"seed_variance": 2}}, "seed_variance", "must be at most 1"),
        ({"mask": ("m.png", mask("RGB"))}, "mask", "mask: nothing in it is transparent"),
        ({"mask": ("m.png", mask("RGBA", alpha=192))}, "mask", "mask: nothing in it is transparent"),
        ({"mask": ("m.png", b"words")}, "mask", "mask: this is no picture"),
        ({"mask": ("m.png", mask("RGBA", (4, 4)))}, "mask", "mask: the mask is 4x4 and the image"),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=words) as error:
            client.images.edit(**good | fields)
        assert error.value.param == param


@pytest.mark.parametrize("stream", [False, True])
def test_mask_that_is_found_to_be_no_good_later_is_told_by_its_name_too(
    client: Any, hands: WorkerHands, stream: bool
) -> None:
    said = "mask_image_url: nothing in the mask is white at the picture's size, 512x512."
    with (
        meanwhile(hands, lambda: hands.fail("image_invalid", said)),
        pytest.raises(openai.APIError, match="mask: nothing in the mask is white at"),
    ):
        list(client.images.edit(image=("a.png", PNG), prompt="a fox", stream=stream))


def test_list_in_a_text_part_is_read_as_json(client: Any, base: str, hands: WorkerHands) -> None:
    loras = json.dumps([{"path": "owner/one"}])
    with meanwhile(hands, lambda: hands.succeed(OUTPUT)):
        client.images.edit(
            image=("a.png", PNG), prompt="a fox", extra_body={"preprocess": "canny", "loras": loras}
        )
    assert newest(base)["input"]["loras"] == [{"path": "owner/one", "scale": 1.0}]


def test_models_are_listed_and_found(client: Any) -> None:
    listed = list(client.models.list())
    assert TEXT_MODEL in [model.id for model in listed]
    assert {(model.object, model.owned_by) for model in listed} == {("model", "tongyi-mai")}
    assert client.models.retrieve(TEXT_MODEL).id == TEXT_MODEL
    with pytest.raises(openai.NotFoundError, match="No model 'gpt-image-1' here"):
        client.models.retrieve("gpt-image-1")


def test_key_is_asked_for_but_not_to_see_whether_anybody_is_there(settings: Settings) -> None:
    keyed = settings.model_copy(update={"api_keys": "ann:key-a"})
    with served(create_app(keyed), keyed) as base:
        with (
            openai.OpenAI(base_url=f"{base}/v1", api_key="other") as stranger,
            pytest.raises(openai.AuthenticationError, match="is none of this server's keys"),
        ):
            stranger.images.generate(model="x", prompt="a fox")
        # SillyTavern's "Connect".
        assert httpx.options(f"{base}/v1/images/generations").is_success
