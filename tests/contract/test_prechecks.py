"""What is wrong with an input beyond its schema is told at the submit, all of it at once."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.config import Settings
from app.main import create_app
from models.command import zturbo
from models.schema.model_ids import INPAINTING
from tests.contract.test_preprocess import write_lora
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, in_process, picture_uri
from worker.queue.registry import WorkerInfo

pytestmark = pytest.mark.anyio

HEAD = "data:image/png;base64,"
FAL = "/fal-ai/z-image/turbo/controlnet/lora"


def cut_off() -> str:
    noise = io.BytesIO()
    Image.frombytes("L", (64, 64), bytes(range(256)) * 16).rotate(17).save(noise, "PNG", compress_level=0)
    return HEAD + base64.b64encode(noise.getvalue()[:2000]).decode()


def nameless(name: str) -> dict[str, Any]:
    return DOCUMENTED_INPUT | {"loras": [{"path": name}]}


async def submit_to(settings: Settings, body: dict[str, Any], **changed: Any) -> httpx.Response:
    app = create_app(settings.model_copy(update=changed))
    async with in_process(app) as http:
        answer = await http.post(SUBMIT, json=body)
    await app.state.requests.close()
    return answer


@pytest.mark.parametrize("path", [SUBMIT, FAL, "/v1/preprocess"])
@pytest.mark.parametrize(
    ("image_url", "words"),
    [
        (f"{HEAD}a*b=", "base64"),
        ("data:image/png,abc", "must read data:image"),
        (f"{HEAD}{base64.b64encode(b'not a picture').decode()}", "no picture"),
        (cut_off(), "damaged or cut off"),
        (HEAD, "no picture"),
    ],
)
async def test_faulty_data_uri_is_a_422(
    http: httpx.AsyncClient, hands: WorkerHands, path: str, image_url: str, words: str
) -> None:
    answer = await http.post(path, json=DOCUMENTED_INPUT | {"image_url": image_url, "preprocess": "depth"})
    assert (answer.status_code, answer.json()["error_code"]) == (422, 422001)
    assert answer.json()["detail"][0]["loc"] == ["body", "image_url"]
    assert words in answer.json()["error_message"]
    assert hands.client.zcard("zturbo:line") == 0


def png(size: tuple[int, int], colour: str | tuple[int, ...], mode: str = "RGB") -> str:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return HEAD + base64.b64encode(file.getvalue()).decode()


IMAGE = png((8, 8), "teal")
FAULTY_MASKS = [
    (png((16, 8), "white"), "the mask is 16x8 and the image in IMAGE 8x8; both must be of one size"),
    (png((8, 8), "#7f7f7f"), "nothing in the mask is white"),
    (png((8, 8), (255, 255, 255, 0), "RGBA"), "nothing in the mask is white"),
    (f"{HEAD}{base64.b64encode(b'not a picture').decode()}", "no picture"),
    (cut_off(), "damaged or cut off"),
    ("http://192.168.3.4/mask.png", "192.168.3.4 is in 192.168.0.0/16"),
    ("mask.png", "must be an https:, http: or data: URL"),
]
"""Each with what is said of it; IMAGE stands for what the dialect calls the image."""


@pytest.mark.parametrize(("mask", "words"), FAULTY_MASKS)
async def test_faulty_mask_is_a_422(http: httpx.AsyncClient, mask: str, words: str) -> None:
    body = {"prompt": "a fox", "image_url": IMAGE, "mask_image_url": mask}
    answer = await http.post(f"/v1/models/{INPAINTING}", json=body)
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", "mask_image_url"]]
    assert words.replace("IMAGE", "image_url") in answer.json()["error_message"]
    good = await http.post(f"/v1/models/{INPAINTING}", json=body | {"mask_image_url": png((8, 8), "#808080")})
    assert good.status_code == 200


async def test_data_uri_larger_than_a_picture_may_be_is_a_422(settings: Settings) -> None:
    body = DOCUMENTED_INPUT | {"image_url": picture_uri(2000)}
    answer = await submit_to(settings, body, max_image_bytes=1000)
    assert answer.status_code == 422
    assert "larger than 0.001 MB" in answer.json()["error_message"]


@pytest.mark.parametrize("name", ["ink", "ink.safetensors", "people/ink.safetensors"])
async def test_lora_name_that_is_not_there_is_a_422(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.post(SUBMIT, json=nameless(name))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "loras", 0, "path"]
    assert "GET /v1/loras" in answer.json()["error_message"]


async def test_lora_name_that_is_there_and_one_of_elsewhere_are_taken(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    write_lora(settings.loras_path / "Ink.safetensors", {})
    for name in ("Ink", "Ink.safetensors", "owner/repo", "https://example.com/a.safetensors"):
        assert (await http.post(SUBMIT, json=nameless(name))).status_code == 200, name


async def test_lora_folder_that_the_api_does_not_share_refuses_nothing(
    settings: Settings, tmp_path: Path, bucket: str
) -> None:
    """An API in a container without the folder, or io workers on other machines."""
    assert (await submit_to(settings, nameless("ink"), lora_dir=tmp_path / "none")).status_code == 200
    assert (await submit_to(settings, nameless("ink"), storage=bucket)).status_code == 200


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://192.168.1.5/x.png", "192.168.0.0/16"),
        ("http://localhost:8080/x.png", "127.0.0.0/8"),
        ("https://169.254.169.254/latest", "169.254.0.0/16"),
        ("http://[::1]/x.png", "::1"),
        ("http://8.8.8.8:8080/x.png", "8.8.8.8"),
        ("http://2130706433/x.png", "127.0.0.0/8"),
    ],
)
async def test_operator_learns_which_rule_refused_and_the_line_that_allows_it(
    settings: Settings, url: str, entry: str
) -> None:
    body = DOCUMENTED_INPUT | {"image_url": url, "loras": [{"path": url}]}
    answer = await submit_to(settings, body, allow_hosts="nas.lan")
    assert answer.status_code == 422
    assert [fault["loc"][1] for fault in answer.json()["detail"]] == ["image_url", "loras"]
    assert "loras[0].path: " in answer.json()["error_message"]
    for fault in answer.json()["detail"]:
        assert not re.match(r"image_url|loras", fault["msg"])
        assert fault["msg"].endswith(f": ZTURBO_ALLOW_HOSTS=nas.lan,{entry} {zturbo()} serve")
    allowed = await submit_to(settings, body, allow_hosts=f"nas.lan,{entry}")
    assert allowed.status_code == 200


async def test_file_of_this_server_is_no_host_near_it(http: httpx.AsyncClient) -> None:
    body = DOCUMENTED_INPUT | {"image_url": f"{http.base_url}/v1/files/{'0' * 32}/upload.png"}
    assert (await http.post(SUBMIT, json=body)).status_code == 200


async def test_address_is_named_once(http: httpx.AsyncClient) -> None:
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT | {"image_url": "http://192.168.1.5/x.png"})
    assert answer.json()["message"].startswith("image_url: 192.168.1.5 is in 192.168.0.0/16, which")


async def test_stranger_learns_nothing_of_this_network(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_keys": "ann:secret"}))
    async with in_process(app, token="secret") as http:
        body = DOCUMENTED_INPUT | {"image_url": "http://192.168.1.5/x.png"}
        assert (await http.post(SUBMIT, json=body)).status_code == 200
        canny = await http.post("/v1/preprocess", json=body | {"preprocess": "canny"})
    await app.state.requests.close()
    assert canny.status_code == 422
    assert "192.168" not in canny.json()["message"]


async def test_every_fault_is_told_at_once(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    hands.register(WorkerInfo("gpu-1", "gpu", "ready", lacks={"depth": 10**9}))
    body = nameless("ink") | {"image_url": f"{HEAD}!", "preprocess": "depth"}
    answer = await http.post(SUBMIT, json=body)
    assert [fault["loc"][1] for fault in answer.json()["detail"]] == ["image_url", "loras", "preprocess"]
