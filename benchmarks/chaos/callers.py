"""The callers of a chaos run: they submit, cancel some, and remember what the server told them."""

import base64
import io
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import httpx
from PIL import Image

from benchmarks.chaos.worker import FAILS
from models.schema.model_ids import CONTROLNET_LORA

CALLERS = 6
PATIENCE_SECONDS = 120.0
"""How long a caller repeats a call that gets no answer."""
RETRY_SECONDS = 0.2
FAILING_SHARE = 0.04
CANCELLED_SHARE = 0.04


@dataclass
class Ticket:
    """One request as its caller knows it."""

    request_id: str
    seed: int
    expected: Literal["succeeded", "failed"]
    cancelled: bool | None = None
    """What the server answered to a cancel; None when none was sent."""


class Callers:
    def __init__(self, url: str, token: str, seed: int) -> None:
        self.tickets: list[Ticket] = []
        self.retries = 0
        """Calls that got no answer, or a 503, and were sent again."""
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=15, trust_env=False
        )
        self._random = random.Random(seed)
        self._picture = _tiny_picture()

    def submit_all(self, requests: int, seconds: float) -> None:
        """Spreads the requests over `seconds`, with jitter, from several threads."""
        begun = time.monotonic()
        times = sorted(self._random.uniform(0, seconds) for _ in range(requests))
        plans = [
            (number, at, self._random.random(), self._random.random() * 3)
            for number, at in zip(count(), times, strict=False)
        ]

        def one(plan: tuple[int, float, float, float]) -> None:
            number, at, lot, pause = plan
            time.sleep(max(0.0, begun + at - time.monotonic()))
            ticket = self._submit(number, fails=lot < FAILING_SHARE)
            self.tickets.append(ticket)
            if 1 - lot < CANCELLED_SHARE:
                time.sleep(pause)
                ticket.cancelled = self.cancel(ticket.request_id)

        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(one, plans))

    def _submit(self, number: int, fails: bool) -> Ticket:
        body = {
            "prompt": FAILS if fails else "a grey square",
            "image_url": self._picture,
            "image_size": "square",
            "loras": [],
            "seed": number,
            "num_inference_steps": 8,
        }
        answer = self.call(
            "POST", f"/v1/models/{CONTROLNET_LORA}", json=body, headers={"Idempotency-Key": f"chaos-{number}"}
        )
        return Ticket(answer["request_id"], number, "failed" if fails else "succeeded")

    def cancel(self, request_id: str) -> bool:
        answer = self.call("POST", f"/v1/requests/{request_id}/cancel", params={"force": "true"})
        return bool(answer.get("outcome") == "cancelled")

    def result(self, request_id: str) -> dict[str, Any]:
        """What the server tells of it; without a status when it does not know it any more."""
        return self.call("GET", f"/v1/requests/{request_id}/result")

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The answer's body, that of a 404 too; asked again while the API or Redis is away."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._http.request(method, path, **options)
                if answer.status_code not in (429, 503):
                    if answer.status_code != httpx.codes.NOT_FOUND:
                        answer.raise_for_status()
                    body: dict[str, Any] = answer.json()
                    return body
            except httpx.TransportError:
                pass
            if time.monotonic() > end:
                raise TimeoutError(f"{method} {path} got no answer for {PATIENCE_SECONDS:.0f} s")
            self.retries += 1
            time.sleep(RETRY_SECONDS)


def _tiny_picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
