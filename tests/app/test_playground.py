"""How the page is served: types, policy, caching; and that its files lean on nothing from elsewhere."""

import json
import re

import httpx
import pytest

from app.routes.playground import CONTENT_TYPES, FILES, FOLDER
from models.sizes import PRESETS

pytestmark = pytest.mark.anyio

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
POLICY = "default-src 'self'; img-src 'self' blob: data:"


async def test_browser_gets_the_page_and_a_program_json(http: httpx.AsyncClient) -> None:
    page = await http.get("/", headers=BROWSER)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    body = await http.get("/", headers={"Accept": "*/*"})
    assert body.json()["name"] == "zturbo"
    assert page.headers["vary"].startswith(body.headers["vary"])


async def test_page_may_load_from_its_own_server_only(http: httpx.AsyncClient) -> None:
    for path in ("/", "/playground/js/page.js"):
        answer = await http.get(path, headers=BROWSER)
        assert answer.headers["content-security-policy"].startswith(POLICY)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_every_file_is_served_under_its_type(http: httpx.AsyncClient) -> None:
    assert {"index.html", "icon.svg", "js/boot.js", "js/page.js", "css/page.css"} <= set(FILES)
    for name in FILES:
        answer = await http.get(f"/playground/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["content-type"] == CONTENT_TYPES["." + name.rpartition(".")[2]]
        if (FOLDER / name).exists() and name != "index.html":
            assert answer.content == (FOLDER / name).read_bytes()


async def test_files_that_the_page_names_are_kept_for_ever(http: httpx.AsyncClient) -> None:
    page = (await http.get("/", headers=BROWSER)).text
    named = re.findall(r'(?:src|href)="(playground/[^"]+)"', page)
    assert len(named) >= 4
    for path in named:
        answer = await http.get(f"/{path}")
        assert "immutable" in answer.headers["cache-control"], path
    folder = named[0].split("/")[1]
    unnamed = await http.get(f"/{named[0].replace(folder + '/', '')}")
    assert (unnamed.status_code, unnamed.headers["cache-control"]) == (200, "no-cache")
    # What an older page asks for is not here any more: it would mix with what is new.
    assert (await http.get(f"/{named[0].replace(folder, '0' * 16)}")).status_code == 404


@pytest.mark.parametrize("path", ["/", "/playground/js/page.js", "/playground/icon.svg"])
async def test_text_is_sent_by_gzip_to_whoever_takes_it(http: httpx.AsyncClient, path: str) -> None:
    packed = await http.get(path, headers=BROWSER | {"Accept-Encoding": "gzip"})
    plain = await http.get(path, headers=BROWSER | {"Accept-Encoding": "identity"})
    assert (packed.headers["content-encoding"], packed.content) == ("gzip", plain.content)
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])


async def test_file_that_the_browser_has_is_not_sent_again(http: httpx.AsyncClient) -> None:
    for path in ("/", "/playground/css/page.css"):
        first = await http.get(path, headers=BROWSER)
        again = await http.get(path, headers=BROWSER | {"If-None-Match": f"W/{first.headers['etag']}"})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        stale = await http.get(path, headers=BROWSER | {"If-None-Match": '"something else"'})
        assert stale.status_code == 200


@pytest.mark.parametrize(
    "name",
    ["", "js", "js/", "nothing.js", "../config.py", "%2e%2e/config.py", "..%2fconfig.py", "/etc/passwd"],
)
async def test_nothing_else_is_served(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.get(f"/playground/{name}")).status_code == 404


async def test_page_leaves_no_way_open_for_a_script_in_it(http: httpx.AsyncClient) -> None:
    """No inline script or style, which the policy would refuse; no markup made of text."""
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page)
    for path in FOLDER.rglob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|document\.write", path.read_text()
        ), path


async def test_files_name_no_other_server() -> None:
    named = set()
    for name in ("index.html", "css/page.css", "js/page.js", "js/boot.js"):
        named |= set(re.findall(r"https?://[\w.-]+", FILES[name].data.decode()))
    # The name of an XML namespace, which is never fetched.
    assert named == {"http://www.w3.org"}


async def test_drawn_sizes_are_the_servers() -> None:
    """The schema has the names of the sizes and not their pixels, so the page holds them too."""
    rows = re.findall(r"^  (\w+): (\[\d+, \d+\]),$", (FOLDER / "js/sizes.js").read_text(), re.M)
    assert {name: tuple(json.loads(size)) for name, size in rows} == PRESETS
