"""A page on another port, in a real browser, calls a server that has keys."""

import base64
import functools
import http.server
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page

from app.config import Settings
from app.main import create_app
from tests.playground.conftest import NewPage
from tests.support.http_api import SUBMIT, WorkerHands, served
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

FAL = "/fal-ai/z-image/turbo/controlnet/lora"
SCRIPT = """
async ([base, key, path, options]) => {
  try {
    const headers = { Authorization: `Bearer ${key}`, ...(options.headers ?? {}) };
    const answer = await fetch(base + path, { ...options, headers });
    const names = ["retry-after", "x-fal-request-id", "preference-applied", "www-authenticate"];
    const told = Object.fromEntries(names.map((name) => [name, answer.headers.get(name)]));
    return { status: answer.status, body: await answer.text(), ...told };
  } catch (error) {
    return { refused: String(error) };
  }
}
"""
UPLOAD = """
async ([base, key, picture]) => {
  const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
  const form = new FormData();
  form.append("file", new Blob([bytes], { type: "image/png" }), "picture.png");
  const options = { method: "POST", body: form, headers: { Authorization: `Bearer ${key}` } };
  const kept = await (await fetch(`${base}/v1/files`, options)).json();
  const picture_ = await (await fetch(kept.url)).blob();
  const bitmap = await createImageBitmap(picture_);
  return [picture_.type, bitmap.width, bitmap.height];
}
"""

Fetch = Callable[..., dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path,
        redis_url=redis_url,
        model="z-image-turbo",
        api_keys="ann:secret",
        max_queue_per_key=2,
    )


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """Origin of a page that is not ours."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join()


def fetch(page: Page, base: str, path: str, key: str = "secret", **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = page.evaluate(SCRIPT, [base, key, path, options])
    return answer


def post(page: Page, base: str, path: str, body: str) -> dict[str, Any]:
    return fetch(page, base, path, method="POST", headers={"Content-Type": "application/json"}, body=body)


def a_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(file, "PNG")
    return file.getvalue()


def test_page_on_another_port_submits_follows_and_fetches(
    settings: Settings, new_page: NewPage, elsewhere: str
) -> None:
    app, hands = create_app(settings), WorkerHands(settings)
    file_id, name = new_file_id(), "image.png"
    Storage(open_objects(settings)).put(file_id, name, a_picture())
    image = {
        "file_id": file_id,
        "name": name,
        "width": 8,
        "height": 4,
        "content_type": "image/png",
        "size": 9,
    }
    with served(app, settings) as base:
        page = new_page(elsewhere)
        body = '{"prompt": "A lighthouse"}'
        held = post(page, base, f"{SUBMIT.removesuffix('/controlnet/lora')}?wait=0.1", body)
        assert (held["status"], held["preference-applied"]) == (200, "wait=0.1")
        hands.succeed({"image": image, "seed": 1, "model": "demo", "prompt": "", "timings": {}})
        listed = fetch(page, base, "/v1/requests")
        assert listed["status"] == 200
        request_id = page.evaluate("JSON.parse", listed["body"])["requests"][0]["request_id"]
        events = fetch(page, base, f"/v1/requests/{request_id}/events")
        assert "event: result" in events["body"]
        # An <img> needs no leave, but a script that reads its pixels does.
        assert page.evaluate(
            "async (url) => (await createImageBitmap(await (await fetch(url)).blob())).width",
            f"{base}/v1/files/{file_id}/{name}",
        )
        assert page.evaluate(UPLOAD, [base, "secret", base64.b64encode(a_picture()).decode()]) == [
            "image/png",
            8,
            4,
        ]
    hands.close()


def test_page_on_another_port_reads_errors_and_their_headers(
    settings: Settings, new_page: NewPage, elsewhere: str
) -> None:
    app = create_app(settings)
    with served(app, settings) as base:
        page = new_page(elsewhere)
        refused = fetch(page, base, "/v1/models", key="wrong")
        assert (refused["status"], refused["www-authenticate"]) == (401, "Bearer")
        assert post(page, base, SUBMIT, "{}")["status"] == 422
        assert fetch(page, base, "/nowhere")["status"] == 404
        whole = '{"prompt": "A ball", "image_url": "https://example.com/a.png", "loras": []}'
        taken = post(page, base, FAL, whole)
        assert taken["status"] == 200
        status = fetch(page, base, f"/fal-ai/z-image/requests/{taken['x-fal-request-id']}/status")
        assert status["status"] == 202
        post(page, base, SUBMIT, whole)
        full = post(page, base, SUBMIT, whole)
        assert full["status"] == 429
        assert int(full["retry-after"]) > 0


@pytest.mark.parametrize("changed", [{"api_keys": ""}, {"allow_origins": "https://app.example.com"}])
def test_page_that_has_no_leave_reads_nothing(
    settings: Settings, new_page: NewPage, elsewhere: str, changed: dict[str, str]
) -> None:
    settings = settings.model_copy(update=changed)
    with served(create_app(settings), settings) as base:
        page = new_page(elsewhere)
        assert "Failed to fetch" in fetch(page, base, "/v1/models")["refused"]
        assert "Failed to fetch" in post(page, base, SUBMIT, "{}")["refused"]


def test_page_whose_origin_is_named_may_call(settings: Settings, new_page: NewPage, elsewhere: str) -> None:
    settings = settings.model_copy(update={"allow_origins": elsewhere})
    with served(create_app(settings), settings) as base:
        assert fetch(new_page(elsewhere), base, "/v1/models")["status"] == 200
