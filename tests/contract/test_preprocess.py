"""POST /v1/preprocess and GET /v1/loras: what goes into a picture, before it is made."""

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from anyio.to_thread import run_sync
from PIL import Image

from app.config import Settings
from models.weights.header import Header, read_header
from tests.contract.test_upload import upload
from tests.support.http_api import WorkerHands
from tests.support.processes import wait_for

pytestmark = pytest.mark.anyio

DEPTH = {"image_url": "https://a.test/x.png", "preprocess": "depth"}
NOBODY = "image_url: nobody is there."
NO_DETECTOR = "The detector is not here; run `zturbo pull detectors`."
MADE = {"file_id": "0" * 32, "name": "control.png", "width": 512, "height": 512}


@pytest.fixture(autouse=True)
def no_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def square(width: int, height: int) -> bytes:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


async def in_line(hands: WorkerHands) -> None:
    await run_sync(wait_for, lambda: hands.client.zcard("zturbo:line"))


async def test_canny_map_is_what_a_request_would_be_guided_by_within_a_second(
    http: httpx.AsyncClient,
) -> None:
    from models.canny import canny

    image_url = (await upload(http, square(1024, 768))).json()["url"]
    body = {"image_url": image_url, "preprocess": "canny", "image_size": "auto"}
    await http.post("/v1/preprocess", json=body)
    started = time.monotonic()
    answer = await http.post("/v1/preprocess", json=body)
    assert time.monotonic() - started < 1
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["width"], made["height"]) == (1024, 768)
    pixels = np.asarray(Image.open(io.BytesIO((await http.get(made["control_image"])).content)))
    source = np.asarray(Image.open(io.BytesIO(square(1024, 768))))
    np.testing.assert_array_equal(pixels, canny(source, 1024, 768))


async def test_map_has_the_size_asked_for(http: httpx.AsyncClient) -> None:
    image_url = (await upload(http, square(300, 200))).json()["url"]
    answer = await http.post("/v1/preprocess", json={"image_url": image_url, "image_size": "portrait_16_9"})
    assert {name: answer.json()[name] for name in ("width", "height")} == {"width": 576, "height": 1024}


@pytest.mark.parametrize("kind", ["depth", "pose"])
async def test_map_of_a_network_is_waited_for_until_the_gpu_worker_has_made_it(
    http: httpx.AsyncClient, hands: WorkerHands, kind: str
) -> None:
    body = {"image_url": "https://a.test/x.png", "preprocess": kind, "image_size": "square"}
    call = asyncio.create_task(http.post("/v1/preprocess", json=body))
    await in_line(hands)
    record = hands.succeed({"control_image": MADE})
    answer = await call
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "control_image": f"http://localhost:8000/v1/files/{MADE['file_id']}/control.png",
        "width": 512,
        "height": 512,
    }
    assert record.input == body
    assert hands.work_queue.get(record.id) is None


@pytest.mark.parametrize(
    ("error_type", "message", "status", "detail"),
    [
        (
            *("fetch_failed", NOBODY, 422),
            [{"loc": ["body", "image_url"], "msg": "nobody is there.", "type": "value_error"}],
        ),
        (
            *("weights_missing", NO_DETECTOR, 422),
            [{"loc": ["body", "preprocess"], "msg": NO_DETECTOR, "type": "value_error"}],
        ),
        ("worker_crashed", "Three workers ended.", 503, "Three workers ended."),
    ],
)
async def test_map_that_cannot_be_made_is_told_with_the_reason(
    http: httpx.AsyncClient, hands: WorkerHands, error_type: str, message: str, status: int, detail: Any
) -> None:
    call = asyncio.create_task(http.post("/v1/preprocess", json=DEPTH))
    await in_line(hands)
    hands.fail(error_type, message)
    answer = await call
    assert (answer.status_code, answer.json()["error_message"]) == (status, message)
    assert answer.json()["detail"] == detail


async def test_call_is_held_no_longer_than_asked_and_nothing_stays_in_line(
    http: httpx.AsyncClient, hands: WorkerHands
) -> None:
    answer = await http.post("/v1/preprocess?wait=0.1", json=DEPTH)
    assert answer.status_code == 503
    assert "within 0.1 s" in answer.json()["error_message"]
    assert hands.client.zcard("zturbo:line") == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "image_url"),
        ({"image_url": "x"}, "image_url"),
        ({"image_url": "http://127.0.0.1/x.png"}, "image_url"),
        ({"image_url": "data:image/png;base64,AAAA"}, "image_url"),
        ({"image_url": "https://a.test/x.png", "image_size": "huge"}, "image_size"),
    ],
)
async def test_fault_is_a_422_that_names_the_field(
    http: httpx.AsyncClient, body: dict[str, str], field: str
) -> None:
    answer = await http.post("/v1/preprocess", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]


def write_lora(path: Path, metadata: dict[str, str]) -> None:
    """A LoRA of rank 2 in the published format, of zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = "diffusion_model.layers.0.attention.to_q"
    header = {
        "__metadata__": metadata,
        f"{name}.lora_A.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        f"{name}.lora_B.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [32, 64]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))


async def test_loras_are_listed_with_what_their_files_say(
    http: httpx.AsyncClient, settings: Settings, tmp_path: Path
) -> None:
    folder = settings.loras_path
    tags = {"10_cats": {"cat": 9, "ink style": 12}, "more": {"cat": 9}}
    write_lora(folder / "Ink.safetensors", {"ss_tag_frequency": json.dumps(tags)})
    write_lora(
        folder / "people" / "ann.safetensors",
        {"modelspec.trigger_phrase": "ann, woman", "ss_base_model_version": "zimage"},
    )
    (folder / "broken.safetensors").write_bytes(b"no header")
    snapshot = tmp_path / "hub" / "models--ann--style"
    write_lora(snapshot / "snapshots" / ("0" * 40) / "style.safetensors", {})
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text("0" * 40)

    answer = await http.get("/v1/loras")

    assert answer.status_code == 200
    assert [lora["path"] for lora in answer.json()["loras"]] == [
        "ann/style/style.safetensors",
        "Ink.safetensors",
        "people/ann.safetensors",
    ]
    hub, ink, ann = answer.json()["loras"]
    assert (hub["source"], hub["rank"], hub["base_model"], hub["trigger_words"]) == ("hub", 2, None, [])
    assert (ink["trigger_words"], ink["size"]) == (
        ["cat", "ink style"],
        (folder / "Ink.safetensors").stat().st_size,
    )
    assert (ann["base_model"], ann["trigger_words"]) == ("zimage", ["ann", "woman"])


@pytest.mark.parametrize("count", ["1e999", "-1e999", "NaN", '"many"', "null", "[1]"])
async def test_lora_with_senseless_metadata_hides_no_other(
    http: httpx.AsyncClient, settings: Settings, count: str
) -> None:
    write_lora(settings.loras_path / "a.safetensors", {"ss_tag_frequency": f'{{"cats": {{"cat": {count}}}}}'})
    write_lora(settings.loras_path / "b.safetensors", {"trigger_words": "fox"})
    answer = await http.get("/v1/loras")
    assert answer.status_code == 200, answer.text
    assert [lora["trigger_words"] for lora in answer.json()["loras"]] == [[], ["fox"]]


async def test_file_whose_name_or_text_is_no_unicode_is_left_out(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    write_lora(settings.loras_path / "good.safetensors", {})
    write_lora(settings.loras_path / "half.safetensors", {"base_model": "\ud83d"})
    write_lora(settings.loras_path / "name-\udcff.safetensors", {})
    answer = await http.get("/v1/loras")
    assert answer.status_code == 200, answer.text
    assert [lora["path"] for lora in answer.json()["loras"]] == ["good.safetensors"]


async def test_header_of_a_lora_is_read_again_only_when_the_file_has_changed(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.weights import installed_loras

    read: list[str] = []

    def noted(path: Path) -> Header:
        read.append(path.name)
        return read_header(path)

    monkeypatch.setattr(installed_loras, "read_header", noted)
    file = settings.loras_path / "a.safetensors"
    write_lora(file, {"trigger_words": "fox"})
    for _ in range(3):
        await http.get("/v1/loras")
    assert read == ["a.safetensors"]
    write_lora(file, {"trigger_words": "the fox"})
    (lora,) = (await http.get("/v1/loras")).json()["loras"]
    assert lora["trigger_words"] == ["the fox"]
    assert len(read) == 2


async def test_no_lora_at_all_is_an_empty_list(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/loras")).json() == {"loras": []}


def test_demo_model_has_loras_of_its_own(settings: Settings) -> None:
    from models.weights.installed_loras import find_loras
    from models.weights.resolve import resolve_lora

    demo = settings.model_copy(update={"model": "demo"})
    found = find_loras(demo)
    assert [(lora.path, lora.source) for lora in found] == [
        ("blueprint.safetensors", "demo"),
        ("night.safetensors", "demo"),
    ]
    assert resolve_lora("blueprint", demo).path.is_file()


def test_listed_names_are_names_that_a_request_takes(settings: Settings) -> None:
    from models.weights.installed_loras import find_loras
    from models.weights.resolve import resolve_lora

    write_lora(settings.loras_path / "people" / "ann.safetensors", {})
    (lora,) = find_loras(settings)
    assert resolve_lora(lora.path, settings).path == settings.loras_path / lora.path
