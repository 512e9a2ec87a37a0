"""The documents as the server shows them: every one, and links that lead somewhere."""

import re

import httpx
import pytest

from app.routes.documents import TEXTS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", TEXTS)
async def test_every_document_is_a_page_whose_links_lead_somewhere(
    http: httpx.AsyncClient, name: str
) -> None:
    answer = await http.get(f"/documents/{name}")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    # The policy would take it away.
    assert "style=" not in re.sub(r"<code.*?</code>", "", answer.text, flags=re.S)
    for href in re.findall(r'href="([^"]+)"', answer.text):
        if href.startswith(("http://", "https://")):
            continue
        url = httpx.URL(f"http://test/documents/{name}").join(href)
        there = await http.get(url.path)
        assert there.status_code == 200, href
        assert f'id="{url.fragment}"' in there.text or not url.fragment, href


async def test_html_in_a_document_stays_text(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        TEXTS, "api", "# A <b>title</b>\n\n<script>alert(1)</script> [x](javascript:alert(1))\n"
    )
    text = (await http.get("/documents/api")).text
    assert "<script>" not in text
    assert "<b>" not in text
    assert "javascript:" not in re.findall(r'href="([^"]+)"', text)


async def test_what_is_no_document_is_named_in_a_404(http: httpx.AsyncClient) -> None:
    for name in ("nothing", "..%2Fpyproject.toml", "api.md"):
        answer = await http.get(f"/documents/{name}")
        assert answer.status_code == 404
