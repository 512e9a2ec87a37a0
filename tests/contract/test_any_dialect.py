"""Bodies made up from odd values, for the routes of every dialect: taken whole, or refused and not kept.

`ZTURBO_TEST_EXAMPLES=5000 pytest tests/contract/test_any_dialect.py` looks longer than the suite does.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.main import create_app
from models.schema.model_ids import IMAGE_TO_IMAGE, IMAGE_TO_IMAGE_LORA, INPAINTING, INPAINTING_LORA, TURBO
from tests.support.examples import examples
from tests.support.http_api import PNG, WorkerHands, picture_uri, served
from tests.support.processes import wait_for

PROMPT: dict[str, Any] = {"prompt": "a fox"}
IMAGE = PROMPT | {"image_url": "https://a.example/fox.png"}
MASKED = IMAGE | {"mask_image_url": "https://a.example/mask.png"}
EDITS = "/v1/images/edits"
HUB = "/hf/"
HELD = ("/v1/images/", HUB, "/fal/run/")

GOOD: dict[str, dict[str, Any]] = {
    **{f"/v1/models/{model}": IMAGE for model in (IMAGE_TO_IMAGE, IMAGE_TO_IMAGE_LORA)},
    **{f"/v1/models/{model}": MASKED for model in (INPAINTING, INPAINTING_LORA)},
    "/fal-ai/z-image/turbo": PROMPT,
    "/fal-ai/z-image/turbo/image-to-image": IMAGE,
    "/fal-ai/z-image/turbo/inpaint/lora": MASKED,
    "/fal/run/fal-ai/z-image/turbo/inpaint": MASKED,
    f"{HUB}{TURBO}": {"inputs": "a fox"},
    f"{HUB}{INPAINTING}": {
        "inputs": IMAGE["image_url"],
        "parameters": PROMPT | {"mask_image_url": MASKED["mask_image_url"]},
    },
    "/v1/images/generations": PROMPT,
    EDITS: PROMPT,
}
"""A body that each route takes; to the edits it goes as the text parts of a form."""

FIELDS = (
    *("prompt", "image_url", "mask_image_url", "strength", "seed_variance", "seed", "loras", "image_size"),
    *("control_start", "control_end", "num_images", "num_inference_steps", "output_format", "preprocess"),
    *("model", "n", "size", "stream", "partial_images", "response_format", "quality", "sync_mode"),
    *(
        "inputs",
        "parameters",
        "width",
        "height",
        "target_size",
        "é",
        "loras[][path]",
        "loras[0][scale]",
        "x[y",
    ),
    *("+2AA-", "\\ud800"),
)
SIDES = st.sampled_from([0, -16, 255, 256, 500, 512.0, 512.5, 2048, 2049, 10**30, "512", None, True])
SIZES = st.dictionaries(st.sampled_from(["width", "height"]), SIDES)
ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            *(None, True, False, 0, 1, -1, 0.5, 1.0, 1.0001, -0.1, 8, 9, 2**63, 10**4000, 1e308, "", "0.5"),
            *(
                "auto",
                "1024x1024",
                "512x9999",
                "１２８x٢٥٦",
                "x",
                "a fox\0",
                "é" * 30,
                "NaN",
                "1e999",
                "true",
            ),
            *([], {}, [[]], [{}], ["x"], [{"path": "a/b"}] * 4, [{"path": "a/b", "scale": -1}]),
            *("https://a.example/", "http://[", "data:,", "data:image/png;base64,", "/v1/files/x", "://"),
            *(
                picture_uri(),
                "square",
                TURBO,
                INPAINTING,
                "url",
                "canny",
                "jpeg",
                "literal",
                "\ud800",
                "+2AA-",
                "\\ud800",
            ),
        ]
    ),
    SIZES,
    st.text(max_size=8),
    st.floats(allow_nan=False, allow_infinity=False),
)
FILES = st.sampled_from([PNG, PNG[:40], b"", b"words"])
PARTS = st.lists(st.tuples(st.sampled_from(["image", "image[]", "mask", "mask[0]", "x"]), FILES), max_size=2)


class Call(NamedTuple):
    path: str
    changes: dict[str, Any]
    files: list[tuple[str, bytes]]
    charset: str
    """What a form claims its text to be in."""
    parameters: bool
    """Whether the changes go where Hugging Face has a model's own fields."""


CALLS = st.builds(
    Call,
    st.sampled_from(list(GOOD)),
    st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=3),
    PARTS,
    st.sampled_from(["utf-8", "utf-8", "utf-7", "unicode_escape", "idna", "none"]),
    st.booleans(),
)


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    limits = settings.model_copy(update={"max_queue": 100_000})
    with (
        served(create_app(limits), limits) as base_url,
        httpx.Client(base_url=base_url, timeout=60) as client,
    ):
        yield client


@examples
@given(call=CALLS)
def test_any_body_is_taken_whole_or_refused_in_a_sentence(
    http: httpx.Client, hands: WorkerHands, call: Call
) -> None:
    check(http, hands, call)


def test_good_body_is_taken(http: httpx.Client, hands: WorkerHands) -> None:
    for path in GOOD:
        status = check(http, hands, Call(path, {}, [], "utf-8", parameters=False))
        assert status == (504 if path.startswith(HELD) else 200)


def check(http: httpx.Client, hands: WorkerHands, call: Call) -> int:
    """The status of the answer."""
    waiting = hands.client.zcard("zturbo:line")
    # Nobody makes pictures: a call that is held is let go at once.
    held = {"wait": "0"} if call.path.startswith(HELD) else {}
    content, kind = written(call)
    headers = {"Content-Type": kind, "x-fal-request-timeout": "0"}
    with http.stream("POST", call.path, params=held, headers=headers, content=content) as answer:
        streams = answer.headers["content-type"].startswith("text/event-stream")
        body = {} if streams else json.loads(answer.read())
    if answer.status_code == 504 and not call.path.startswith("/fal/"):
        going_on = re.search("/v1/requests/(.+)/result", body["message"])
        assert going_on
        http.post(f"/v1/requests/{going_on[1]}/cancel")
    if answer.status_code not in (200, 504):
        refused(answer.status_code, body)
    if answer.status_code == 200 and not streams:
        assert hands.client.zcard("zturbo:line") == waiting + 1
        kept(http, call, body["request_id"])
    else:
        wait_for(lambda: hands.client.zcard("zturbo:line") == waiting)
    return answer.status_code


def refused(status: int, body: dict[str, Any]) -> None:
    assert status in (415, 422)
    assert body["error_message"] == body["message"] == body["error"]["message"]
    assert 0 < len(body["message"]) < 5000
    if status == 422:
        assert len({tuple(fault["loc"]) for fault in body["detail"]}) == len(body["detail"])
        for fault in body["detail"]:
            assert fault["msg"]
            assert "\n" not in fault["msg"]
        assert not re.search("Input should|unable|literal\\[|FalSize|Traceback", str(body)), body


def kept(http: httpx.Client, call: Call, request_id: str) -> None:
    record = http.get(f"/v1/requests/{request_id}").json()
    for name in ("prompt", "strength", "seed_variance", "image_url", "mask_image_url"):
        if name in record["input"] and call.changes.get(name) is not None:
            assert record["input"][name] == call.changes[name]
    if isinstance(size := call.changes.get("image_size"), dict):
        assert re.fullmatch(r"\d+x\d+", record["input"]["image_size"]), size


def written(call: Call) -> tuple[bytes, str]:
    """The body as it is sent, and its type."""
    if call.path == EDITS:
        fields = {name: text(value) for name, value in (GOOD[EDITS] | call.changes).items()}
        return form(
            fields, call.files or [("image", PNG)]
        ), f"multipart/form-data; boundary=b; charset={call.charset}"
    body = GOOD[call.path] | call.changes
    if call.parameters and call.path.startswith(HUB):
        body = GOOD[call.path] | {"parameters": GOOD[call.path].get("parameters", {}) | call.changes}
    return json.dumps(body).encode(), "application/json"


def text(value: object) -> bytes:
    written = value if isinstance(value, str) else json.dumps(value)
    return written.encode(errors="surrogatepass")


def form(fields: dict[str, bytes], files: list[tuple[str, bytes]]) -> bytes:
    parts = [(f'name="{name}"', data) for name, data in fields.items()]
    parts += [(f'name="{name}"; filename="a.png"', data) for name, data in files]
    begun = [
        b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"
        for head, data in parts
    ]
    return b"".join(begun) + b"--b--\r\n"
