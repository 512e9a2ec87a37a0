"""docs/api.md: every exchange in it is made with the server, and every route is in it."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.openapi import describe

pytestmark = pytest.mark.anyio

DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def fits(said: Any, answered: Any) -> bool:
    """Whether an answer is the documented one; … stands for any text."""
    if isinstance(said, dict):
        return said.keys() == answered.keys() and all(fits(said[name], answered[name]) for name in said)
    return said == answered or (said == "…" and isinstance(answered, str))


async def test_every_exchange_is_as_documented(
    http: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    request_id = ""
    exchanges = re.findall(r"```http\n(\w+) (\S+)\n(.*?)\n?\n(\d+)\n(.*?)\n```", DOCUMENT, re.DOTALL)
    assert len(exchanges) == DOCUMENT.count("```http")
    for method, path, body, status, said in exchanges:
        answer = await http.request(method, path.replace("{request_id}", request_id), content=body or None)
        assert answer.status_code == int(status), f"{method} {path}: {answer.text}"
        assert fits(json.loads(said), answer.json()), f"{method} {path}: {answer.text}"
        request_id = answer.json().get("request_id", request_id)


async def test_every_route_is_named(app: FastAPI) -> None:
    for path in describe(app)["paths"]:
        leaf = path.replace("/v1/requests/{request_id}/", "…/")
        assert path in DOCUMENT or leaf in DOCUMENT or path == "/", path
