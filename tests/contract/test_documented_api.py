"""docs/api.md: every exchange in it is made with the server, and every route has one.

What a worker does stands in comments there: `before: …` an exchange, or `meanwhile: …`, which means one move
after each event of a stream, and otherwise all of them as soon as something waits.
"""

import io
import json
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.routing import iter_route_contexts
from PIL import Image

from app.answers import OUR_FAULTS
from app.config import Settings
from app.errors import ApiError
from app.main import create_app
from app.openapi import describe
from models.errors import Cancelled, DeviceBroken, ModelError
from tests.contract.exchanges import Exchange, events, exchanges, fits
from tests.contract.test_preprocess import write_lora
from tests.support.http_api import WorkerHands, served
from tests.support.processes import wait_for
from worker.encoding.encode import encode_preview
from worker.errors import FetchError, ImageError
from worker.queue.keys import Queue
from worker.queue.registry import WorkerInfo
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SECONDS = 10.0
"""Less than between the comments of a stream that is quiet."""
BASE = "http://127.0.0.1:8000"
SUBMITTED = {"prompt": "A lighthouse on a cliff at dusk", "seed": 7}
BYTES = "(the bytes of a picture)"
ALSO_TAKEN = "/fal-ai/z-image/{model:path}/requests/"
"""The full model id, before the routes of fal's requests."""


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "PNG")
    return file.getvalue()


class Moves:
    """What a worker does, by the names in the document."""

    def __init__(self, hands: WorkerHands, settings: Settings) -> None:
        self._hands = hands
        self._storage = Storage(open_objects(settings))
        self._id = self._token = ""

    def make(self, move: str) -> None:
        name, *arguments = move.split()
        getattr(self, name)(*arguments)

    def take(self) -> None:
        running, self._token = self._hands.generate()
        self._id = running.id

    def step(self, number: str) -> None:
        preview = encode_preview(np.zeros((8, 8, 3), np.uint8))
        self._hands.work_queue.beat(self._id, self._token, int(number), 8, preview, 0.2 * (8 - int(number)))

    def finish(self, several: str = "") -> None:
        self.step("8")
        images = (
            [self._file(f"image-{place}.png") for place in (1, 2)] if several else [self._file("image.png")]
        )
        seed = 0 if several else 7
        output = {
            "image": images[0],
            "seed": seed,
            "prompt": SUBMITTED["prompt"],
            "model": "demo",
            "dtype": "float32",
        }
        more = {"images": images, "seeds": [0, 1]} if several else {}
        timings = {"encode": 0.02, "denoise": 1.6, "decode": 0.2}
        self._hands.end(self._id, self._token, output | more | {"timings": timings})

    def expand(self) -> None:
        text = "A white lighthouse on a cliff at dusk, its beam over a calm sea"
        self._hands.work_queue.finish(self._id, self._token, {"expanded_prompt": text, "warning": None})

    def register(self, kind: Queue) -> None:
        gpu = (
            {"model": "z-image-turbo", "device": "cuda"} if kind == "gpu" else {"model": None, "device": None}
        )
        self._hands.register(WorkerInfo(id=f"{kind}-1", kind=kind, state="ready", **gpu))

    def _file(self, name: str) -> dict[str, Any]:
        file_id = new_file_id()
        self._storage.put(file_id, name, picture())
        size = {"width": 1024, "height": 1024, "size": len(picture())}
        return {"file_id": file_id, "name": name, "content_type": "image/png"} | size


class Caller:
    """Makes exchanges one after the other, and remembers what the answers named."""

    def __init__(self, http: httpx.Client, moves: Moves, hands: WorkerHands) -> None:
        self._http = http
        self._moves = moves
        self._hands = hands
        self._seen: list[str] = []
        self._request_id = ""

    def whole(self, text: str) -> str:
        """A path or a body of the document, with what … stands for."""
        text = text.replace("/requests/…", f"/requests/{self._request_id}")
        return re.sub(r"/(v1/files|fal/uploads)/…[^\s\"]*", self._recalled, text)

    def _recalled(self, documented: re.Match[str]) -> str:
        pattern = '[^"]*'.join(map(re.escape, documented[0].split("…")))
        found = next(found for text in reversed(self._seen) if (found := re.search(pattern, text)))
        return found[0]

    def make(self, exchange: Exchange) -> None:
        if exchange.when == "before":
            for move in exchange.moves:
                self._submit() if move == "submit" else self._moves.make(move)
        body = self.whole(exchange.body).replace("\n", "\r\n").encode()
        headers = {name: self.whole(value) for name, value in exchange.headers.items()}
        call = self._http.stream(
            exchange.method,
            self.whole(exchange.path),
            content=body.replace(BYTES.encode(), picture()),
            headers=headers,
        )
        stream = exchange.said_headers.get("Content-Type", "").startswith("text/event-stream")
        worker = threading.Thread(target=self._work, args=(exchange.moves,))
        if exchange.when == "meanwhile" and not stream:
            worker.start()
        with call as answer:
            assert answer.status_code == exchange.status, answer.read().decode()
            for name, value in exchange.said_headers.items():
                assert fits(value, answer.headers[name]), name
            if stream:
                self._follow(answer, exchange)
            else:
                answer.read()
                self._compare(exchange.said, answer)
        if worker.ident is not None:
            worker.join()

    def _submit(self) -> None:
        answer = self._http.post("/v1/models/tongyi-mai/z-image/turbo", json=SUBMITTED)
        self._request_id = answer.json()["request_id"]

    def _work(self, moves: list[str]) -> None:
        wait_for(lambda: self._hands.client.zcard("zturbo:line"))
        for move in moves:
            self._moves.make(move)

    def _compare(self, said: str, answer: httpx.Response) -> None:
        if said == BYTES:
            assert answer.content == picture()
        elif answer.headers["Content-Type"].startswith("application/json"):
            body = answer.json()
            assert fits(json.loads(said), body), answer.text
            self._seen.append(answer.text)
            self._request_id = body.get("request_id", self._request_id)
        else:
            assert said in answer.text

    def _follow(self, answer: httpx.Response, exchange: Exchange) -> None:
        """Every documented event comes, in this order; others may come between."""
        expected = list(events(exchange.said.splitlines()))
        moves, others = iter(exchange.moves), []
        try:
            for name, data in events(answer.iter_lines()):
                if not expected or name != expected[0][0] or not fits(expected[0][1], data):
                    others.append(data)
                    continue
                expected.pop(0)
                if move := next(moves, None):
                    self._moves.make(move)
        except httpx.ReadTimeout:
            pass
        assert expected == [], json.dumps(others)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    write_lora(settings.loras_path / "ink.safetensors", {"ss_tag_frequency": '{"ink": {"ink style": 12}}'})
    return settings.model_copy(update={"public_base_url": BASE})


def test_every_exchange_is_as_documented(settings: Settings, hands: WorkerHands) -> None:
    with served(create_app(settings), settings) as base, httpx.Client(base_url=base, timeout=SECONDS) as http:
        caller = Caller(http, Moves(hands, settings), hands)
        for exchange in exchanges(DOCUMENT):
            try:
                caller.make(exchange)
            except Exception as error:
                raise AssertionError(f"{exchange.method} {exchange.path}") from error


def test_every_error_is_in_the_table() -> None:
    rows = re.findall(r"^\| (\d{3}) \| ([\d, ]+) \|", DOCUMENT, re.MULTILINE)
    documented = [(int(status), int(code)) for status, codes in rows for code in codes.split(", ")]
    assert sorted(documented) == sorted(
        (error.status, error.error_code) for error in ApiError.__subclasses__()
    )


def test_every_failure_is_in_the_table_with_who_can_mend_it() -> None:
    rows = re.findall(r"^\| (`\w+`.*?) \| .* \| (caller|server) \|$", DOCUMENT, re.MULTILINE)
    mended = {name: by for names, by in rows for name in re.findall(r"\w+", names)}
    # A cancelled request has no error, and a broken device is its worker's end.
    raised = {error.code for error in ModelError.__subclasses__()} - {Cancelled.code, DeviceBroken.code}
    assert set(mended) == raised | {FetchError.code, ImageError.code, *OUR_FAULTS}
    assert {name for name, by in mended.items() if by == "server"} == set(OUR_FAULTS)


def test_every_route_has_an_exchange(settings: Settings) -> None:
    app = create_app(settings)
    routes = {(method.upper(), path) for path, way in describe(app)["paths"].items() for method in way}
    routes |= {
        (method, route.path.replace(":path}", "}"))
        for route in iter_route_contexts(app.routes)
        if route.path.startswith("/fal") and not route.path.startswith(ALSO_TAKEN)
        for method in route.methods or ()
    }
    sections = re.findall(r"^### `(?:(\w+) )?(/\S*)`\n(.*?)(?=^##|\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert all("```http" in text for _, _, text in sections)
    documented = {(method, path) for method, path, _ in sections}
    assert {route for route in routes if route[1] != "/fal/proxy"} == documented - {("", "/fal/proxy")}
