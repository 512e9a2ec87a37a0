"""Calls made at random from the OpenAPI document, with a good token, a wrong one and none.

No answer is a 500 or of a status that the document does not name. `ZTURBO_TEST_EXAMPLES=5000 pytest
tests/contract/test_any_call.py` looks longer than the suite does.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.main import create_app
from tests.support.examples import examples
from tests.support.http_api import DOCUMENTED_INPUT, MODEL, SUBMIT, served

DOCUMENT = json.loads((Path(__file__).parents[2] / "openapi.json").read_text())
TOKEN = "good-token"

OPERATIONS = [
    (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
PUBLIC = {path for _, path, operation in OPERATIONS if not operation.get("security")}
WORDS = [
    "",
    "0",
    "1",
    "-1",
    "true",
    "x",
    "%",
    "../..",
    "a/b",
    "é",
    "\u0000",
    "9" * 30,
    "in_queue",
    "https://a.example/",
]
HEADER_WORDS = [word for word in WORDS if word.isascii() and word.isprintable()]


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    method, path, operation = draw(st.sampled_from(OPERATIONS))
    words = st.sampled_from([*WORDS, "KNOWN", MODEL]) | st.text(max_size=8)
    query, headers = {}, {}
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        if parameter["in"] == "path":
            # A stream of events about a request that nobody works on would not end.
            chosen = draw(words.filter(lambda word: word != "KNOWN") if "events" in path else words)
            path = path.replace(f"{{{name}}}", quote(chosen, safe="") or "x")
        elif parameter["in"] == "header" and draw(st.booleans()):
            headers[name] = draw(st.sampled_from(HEADER_WORDS))
        elif name == "wait":
            # Said in every call: nobody works on what is asked, and some routes wait a minute unless told.
            query[name] = draw(st.sampled_from(["0", "-1", "x"]))
        elif parameter["in"] == "query" and draw(st.booleans()):
            query[name] = draw(words)
    if token := draw(st.sampled_from([TOKEN, TOKEN, "wrong", None])):
        headers["Authorization"] = f"Bearer {token}"
    body = draw(
        st.none()
        | st.binary(max_size=60)
        | st.just(json.dumps(DOCUMENTED_INPUT).encode())
        | st.dictionaries(
            st.sampled_from([*DOCUMENTED_INPUT, "x"]), st.integers() | st.text(), max_size=3
        ).map(lambda fields: json.dumps(fields).encode())
    )
    return {
        "operation": operation,
        "method": method,
        "path": path,
        "query": query,
        "headers": headers,
        "body": body,
    }


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    keyed = settings.model_copy(update={"api_keys": f"ann:{TOKEN}", "max_queue": 100_000})
    with served(create_app(keyed), keyed) as base_url, httpx.Client(base_url=base_url, timeout=60) as client:
        yield client


@examples
@given(call=calls())
def test_any_call_is_answered_as_documented(http: httpx.Client, call: dict[str, Any]) -> None:
    if "KNOWN" in call["path"]:
        known = http.post(SUBMIT, json=DOCUMENTED_INPUT, headers={"Authorization": f"Bearer {TOKEN}"}).json()
        call["path"] = call["path"].replace("KNOWN", known["request_id"])
    answer = http.request(
        call["method"], call["path"], params=call["query"], headers=call["headers"], content=call["body"]
    )
    status = str(answer.status_code)
    assert status != "500"
    if status in ("404", "405") and answer.json()["error_code"] in (404002, 405001):
        # What stood in for a part of the path made it another path.
        return
    assert status in call["operation"]["responses"]
    if call["operation"].get("security") and call["headers"].get("Authorization") != f"Bearer {TOKEN}":
        assert status == "401"
