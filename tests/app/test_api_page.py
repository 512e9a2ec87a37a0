"""/docs: the whole API on one page of our own."""

import re

import httpx
import pytest
from fastapi import FastAPI

from app.openapi import describe

pytestmark = pytest.mark.anyio


async def test_page_has_every_route_body_and_field(http: httpx.AsyncClient, app: FastAPI) -> None:
    answer = await http.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    document = describe(app)
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in answer.text
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in answer.text
        for field in schema.get("properties", {}):
            assert f"<td><code>{field}</code></td>" in answer.text


async def test_every_link_leads_somewhere(http: httpx.AsyncClient) -> None:
    text = (await http.get("/docs")).text
    for href in set(re.findall(r'(?:href|src)="([^"]+)"', text)):
        if href.startswith("#"):
            assert f'id="{href[1:]}"' in text
        else:
            assert (await http.get(str(httpx.URL("/docs").join(href)))).status_code == 200, href


async def test_page_asks_for_nothing_elsewhere_and_runs_no_script(http: httpx.AsyncClient) -> None:
    answer = await http.get("/docs")
    page = await http.get("/", headers={"Accept": "text/html"})
    assert answer.headers["content-security-policy"] == page.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "://" not in re.sub(r"<(?:p|td)>.*?</(?:p|td)>", "", answer.text)
