"""Bodies that are no plain JSON, and paths that are spelled otherwise."""

import gzip
import json
from typing import Any

import httpx
import pytest

from tests.contract.test_errors import check
from tests.contract.test_upload import picture
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT

pytestmark = pytest.mark.anyio

JSON = json.dumps(DOCUMENTED_INPUT).encode()
FORM = "application/x-www-form-urlencoded"
FAL = "/fal-ai/z-image/turbo/controlnet/lora"
OPENAI = "/v1/images/generations"
HF = "/hf/tongyi-mai/z-image/turbo"


@pytest.mark.parametrize("path", [SUBMIT, FAL, OPENAI, HF, "/v1/preprocess", "/v1/expand"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"content": gzip.compress(JSON), "headers": {"Content-Encoding": "gzip"}}, "compressed"),
        ({"content": gzip.compress(JSON)}, "compressed"),
        ({"data": {"prompt": "A lighthouse"}}, "form"),
        ({"files": {"prompt": (None, "A lighthouse")}}, "form"),
    ],
)
async def test_compressed_body_and_form_are_a_415_in_words(
    http: httpx.AsyncClient, path: str, options: dict[str, Any], words: str
) -> None:
    assert words in check(await http.post(path, **options), 415, 415001)["message"]


@pytest.mark.parametrize("path", ["/v1/files", "/fal/cdn/files/upload"])
async def test_compressed_upload_is_a_415(http: httpx.AsyncClient, path: str) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=x"}
    answer = await http.post(path, content=gzip.compress(picture()), headers=headers)
    check(answer, 415, 415001)
    assert answer.headers["accept-encoding"] == "identity"


async def test_json_that_curl_calls_a_form_is_taken(http: httpx.AsyncClient) -> None:
    answer = await http.post(SUBMIT, content=JSON, headers={"Content-Type": FORM})
    assert answer.status_code == 200
    for content, words in ((JSON[:-1], "not JSON: EOF"), (b" ", "the body is empty")):
        answer = await http.post(SUBMIT, content=content, headers={"Content-Type": FORM})
        assert answer.status_code == 422
        assert words in answer.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/v1/models", SUBMIT])
async def test_head_is_get_without_the_body(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.head(path)).status_code == (await http.get(path)).status_code


@pytest.mark.parametrize(
    "path",
    [
        *("/healthz", "/v1/models", "/v1/models/categories", SUBMIT, "/v1/requests", "/v1/requests/x/status"),
        *(
            "/v1/loras",
            "/openapi.json",
            "/fal-ai/z-image/requests/x/status",
            "/playground/icon.svg",
            "/nowhere",
        ),
    ],
)
async def test_slash_at_the_end_or_doubled_means_nothing(http: httpx.AsyncClient, path: str) -> None:
    plain = await http.get(path)
    for other in (f"{path}/", f"{path}//", f"/{path}", path.replace("/", "//")):
        answer = await http.get(f"http://localhost:8000{other}")
        assert (answer.status_code, answer.content) == (plain.status_code, plain.content), other


async def test_submit_takes_them_too(http: httpx.AsyncClient) -> None:
    for path in (f"{SUBMIT}/", f"/{SUBMIT}", f"{FAL}/"):
        assert (await http.post(f"http://localhost:8000{path}", json=DOCUMENTED_INPUT)).status_code == 200
