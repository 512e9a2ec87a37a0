"""?webhook=URL: the end of a request told to the caller's own server, signed and tried again."""

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.main import create_app
from app.webhooks import AT_ONCE
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, picture_uri, served
from tests.support.processes import wait_for
from worker.errors import FetchError
from worker.inputs.guard import AllowList
from worker.queue.requests import RequestStore
from worker.storage.workspace import INLINE_CHARACTERS
from worker.webhooks import POST_SECONDS, TRY_SECONDS, next_pause, post, sign

OUTPUT: dict[str, Any] = {"image": {"file_id": "0" * 32, "name": "image.png"}, "seed": 7}
FAL_SUBMIT = "/fal-ai/z-image/turbo/controlnet/lora"
FAL_REQUESTS = "/fal-ai/z-image/requests"
FAL_OUTPUT = {
    "image": OUTPUT["image"] | {"content_type": "image/png", "width": 8, "height": 8, "size": 3},
    "seed": 7, "prompt": "p", "timings": {},
}  # fmt: skip
DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"


class Receiver:
    """A caller's server: what it was sent, and the statuses that it answers, the last one for ever."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.statuses = [204]
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.calls.append(({name.lower(): text for name, text in self.headers.items()}, body))
                status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
                self.send_response(status)
                self.send_header("location", "http://169.254.169.254/")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/done"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def calls(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr("app.webhooks.LOOK_SECONDS", 0.02)
    # Another port than 80 is only for hosts that the operator names.
    settings = settings.model_copy(update={"allow_hosts": "127.0.0.1"})
    with served(create_app(settings), settings) as base, httpx.Client(base_url=base) as client:
        yield client


def submit(calls: httpx.Client, url: str) -> str:
    answer = calls.post(SUBMIT, json=DOCUMENTED_INPUT, params={"webhook": url})
    assert answer.status_code == 200, answer.text
    request_id: str = answer.json()["request_id"]
    return request_id


def attempts(calls: httpx.Client, request_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = calls.get(f"/v1/requests/{request_id}/result").json()["webhook"]["attempts"]
    return found


def documented_verify() -> Callable[[str, dict[str, str], bytes], bool]:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the snippet that readers are told to run
    verify: Callable[[str, dict[str, str], bytes], bool] = names["verify"]
    return verify


def test_end_is_posted_and_the_documented_snippet_verifies_it(
    calls: httpx.Client, receiver: Receiver, hands: WorkerHands
) -> None:
    request_id = submit(calls, receiver.url)
    hands.succeed(OUTPUT)
    result = calls.get(f"/v1/requests/{request_id}/result").json()
    wait_for(lambda: bool(attempts(calls, request_id)))

    ((headers, body),) = receiver.calls
    told = json.loads(body)
    assert told == result | {"webhook": {"url": receiver.url, "attempts": []}}
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == request_id
    verify, secret = documented_verify(), calls.get("/v1/webhooks/secret").json()["secret"]
    assert verify(secret, headers, body)
    assert not verify(secret, headers, body + b" ")
    assert not verify(secret, headers | {"webhook-timestamp": str(int(time.time()) - 60)}, body)
    assert not verify("whsec_" + "A" * 43 + "=", headers, body)
    (attempt,) = attempts(calls, request_id)
    assert (attempt["status"], attempt["at"][:4].isdigit()) == (204, True)


def test_fals_callers_are_told_in_fals_words(
    calls: httpx.Client, receiver: Receiver, hands: WorkerHands
) -> None:
    for end in (lambda: hands.succeed(FAL_OUTPUT), lambda: hands.fail("fetch_failed", "Nobody is there.")):
        told = len(receiver.calls)
        answer = calls.post(FAL_SUBMIT, json=DOCUMENTED_INPUT, params={"fal_webhook": receiver.url})
        end()
        wait_for(lambda told=told: len(receiver.calls) > told)
        body = json.loads(receiver.calls[-1][1])
        assert body["request_id"] == body["gateway_request_id"] == answer.json()["request_id"]
    done, failed = (json.loads(body) for _, body in receiver.calls)
    assert (done["status"], "error" in done) == ("OK", False)
    assert done["payload"] == calls.get(f"{FAL_REQUESTS}/{done['request_id']}").json()
    assert (failed["status"], failed["error"]) == ("ERROR", "Nobody is there.")
    assert failed["payload"]["detail"][0]["type"] == "fetch_failed"


@pytest.mark.parametrize("status", [500, 302, 300])
def test_anything_but_a_2xx_is_tried_again(
    calls: httpx.Client, receiver: Receiver, hands: WorkerHands, status: int
) -> None:
    receiver.statuses = [status, 200]
    request_id = submit(calls, receiver.url)
    hands.fail("fetch_failed", "image_url: nobody is there.")
    wait_for(lambda: len(attempts(calls, request_id)) == 1)
    seconds, micro = hands.client.time()
    due = hands.client.zscore("zturbo:webhooks", request_id) / 1000 - (seconds + micro / 1e6)
    assert 3 < due <= 5
    hands.client.zadd("zturbo:webhooks", {request_id: 0})
    wait_for(lambda: len(attempts(calls, request_id)) == 2)
    assert [attempt["status"] for attempt in attempts(calls, request_id)] == [status, 200]
    assert hands.client.zcard("zturbo:webhooks") == 0
    assert json.loads(receiver.calls[1][1])["status"] == "failed"


def test_cancelled_request_is_told_too_and_gone_ends_it(
    calls: httpx.Client, receiver: Receiver, hands: WorkerHands
) -> None:
    receiver.statuses = [410]
    request_id = submit(calls, receiver.url)
    calls.post(f"/v1/requests/{request_id}/cancel")
    wait_for(lambda: bool(attempts(calls, request_id)))
    assert json.loads(receiver.calls[0][1])["status"] == "cancelled"
    assert hands.client.zcard("zturbo:webhooks") == 0


@pytest.fixture
async def due(requests: RequestStore, hands: WorkerHands) -> RequestStore:
    """A server that sends nothing by itself, with the webhook of request `a` due."""
    await requests.submit("a", "model", {}, "local", [], {"url": "http://x/", "base": "", "dialect": ""})
    hands.fail("fetch_failed", "image_url: nobody is there.")
    return requests


@pytest.mark.anyio
async def test_webhook_that_one_process_sends_is_due_to_no_other_until_its_lease_is_over(
    due: RequestStore,
) -> None:
    assert await due.due_webhooks(1, lease_seconds=0) == ["a"]
    assert await due.due_webhooks(1, lease_seconds=60) == ["a"]
    assert await due.due_webhooks(1, lease_seconds=60) == []


@pytest.mark.anyio
async def test_webhook_of_a_deleted_request_is_not_due(due: RequestStore) -> None:
    assert await due.delete("a")
    assert await due.due_webhooks(1, lease_seconds=60) == []


@pytest.mark.anyio
async def test_outcome_of_a_webhook_whose_request_was_deleted_meanwhile_leaves_nothing(
    due: RequestStore, hands: WorkerHands
) -> None:
    await due.due_webhooks(1, lease_seconds=60)
    await due.delete("a")
    await due.delivered("a", 1, {"at": 0, "status": 500}, 5)
    assert hands.client.exists("zturbo:webhooks", "zturbo:req:a") == 0


@pytest.mark.parametrize(("path", "name"), [(SUBMIT, "webhook"), (FAL_SUBMIT, "fal_webhook")])
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://10.0.0.1/done", "does not fetch from"),
        ("http://169.254.169.254/latest", "does not fetch from"),
        ("http://0x7f000002/", "does not fetch from"),
        ("http://8.8.8.8:8080/", "does not fetch from"),
        ("ftp://example.com", "a URL must begin with https:// or http://"),
        ("http://me:secret@example.com/", "no user name or password"),
        (f"http://[::1%{'a' * 70}]/", "is not a URL"),
    ],
)
def test_what_cannot_be_posted_to_is_a_422(
    calls: httpx.Client, path: str, name: str, url: str, sentence: str
) -> None:
    answer = calls.post(path, json=DOCUMENTED_INPUT, params={name: url})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", name]
    assert answer.json()["message"].startswith(f"{name}: ")
    assert sentence in answer.json()["message"]


def test_name_that_means_our_own_network_is_not_posted_to(
    calls: httpx.Client, hands: WorkerHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, flags: int = 0) -> list[Any]:
        if flags:
            raise socket.gaierror
        return [ip_address("10.0.0.1")]

    monkeypatch.setattr("worker.inputs.guard._resolve", resolve)
    request_id = submit(calls, "http://inside.example/done")
    hands.succeed(OUTPUT)
    wait_for(lambda: bool(attempts(calls, request_id)))
    assert "does not fetch from" in attempts(calls, request_id)[0]["error"]


def test_whatever_fails_while_sending_is_an_attempt(
    calls: httpx.Client, hands: WorkerHands, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.webhooks.sign", lambda *_: 1 / 0)
    request_id = submit(calls, receiver.url)
    hands.succeed(OUTPUT)
    wait_for(lambda: bool(attempts(calls, request_id)))
    (attempt,) = attempts(calls, request_id)
    assert "its log says why" in attempt["error"]
    assert receiver.calls == []


def test_pauses_grow_and_end_after_a_day() -> None:
    pauses, since = [], 0.0
    while (pause := next_pause(len(pauses) + 1, since)) is not None:
        pauses.append(pause)
        since += pause
    assert pauses[:4] == [5, 20, 80, 320]
    assert max(pauses) == 4 * 3600
    assert 20 * 3600 <= since <= 24 * 3600


def test_last_pause_ends_within_the_day() -> None:
    assert next_pause(1, TRY_SECONDS - 5) == 5
    assert next_pause(1, TRY_SECONDS - 4) is None


def test_receiver_that_is_not_there_or_too_slow_is_told_so(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = AllowList.parse("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}/"
    with pytest.raises(FetchError, match="webhook: no connection"):
        post(nobody, {}, b"{}", allowed)
    monkeypatch.setattr("worker.webhooks.POST_SECONDS", 0)
    with pytest.raises(FetchError, match="webhook: the server did not answer in time"):
        post(receiver.url, {}, b"{}", allowed)


def test_signature_is_the_one_of_the_standards_own_example() -> None:
    # https://github.com/standard-webhooks/standard-webhooks, the test vector of its libraries.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_receivers_that_never_answer_keep_no_submit_waiting(calls: httpx.Client, hands: WorkerHands) -> None:
    picture = {"image_url": picture_uri(INLINE_CHARACTERS)}
    with ExitStack() as opened:
        silent = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=AT_ONCE))
        silent.settimeout(POST_SECONDS / 2)
        for _ in range(AT_ONCE):
            submit(calls, f"http://127.0.0.1:{silent.getsockname()[1]}/")
            hands.fail("fetch_failed", "image_url: nobody is there.")
        for _ in range(AT_ONCE):
            opened.enter_context(silent.accept()[0])
        # Two things of a submit are done by threads: its picture is kept, and the first in line rings a bell.
        answer = calls.post(SUBMIT, json=DOCUMENTED_INPUT | picture, timeout=POST_SECONDS / 2)
    assert answer.status_code == 200
