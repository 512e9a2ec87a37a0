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
    assert page.headers["vary"] == body.headers["vary"] == "Accept"


async def test_page_may_load_from_its_own_server_only(http: httpx.AsyncClient) -> None:
    for path in ("/", "/playground/js/main.js"):
        answer = await http.get(path, headers=BROWSER)
        assert answer.headers["content-security-policy"].startswith(POLICY)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_every_file_is_served_under_its_type(http: httpx.AsyncClient) -> None:
    assert {"index.html", "icon.svg", "js/main.js", "css/base.css"} <= FILES
    for name in sorted(FILES):
        answer = await http.get(f"/playground/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["content-type"] == CONTENT_TYPES["." + name.rpartition(".")[2]]
        assert answer.content == (FOLDER / name).read_bytes()


async def test_file_that_the_browser_has_is_not_sent_again(http: httpx.AsyncClient) -> None:
    for path in ("/", "/playground/css/tokens.css"):
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
    for name in FILES:
        if name.endswith(".js"):
            source = (FOLDER / name).read_text()
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|document\.write", source
            ), name


async def test_files_name_no_other_server() -> None:
    named = set()
    for name in FILES - {"icon.svg", "example.jpg"}:
        named |= set(re.findall(r"https?://[\w.-]+", (FOLDER / name).read_text()))
    # The name of an XML namespace, which is never fetched.
    assert named == {"http://www.w3.org"}


async def test_every_module_that_is_imported_is_there() -> None:
    for name in FILES:
        if name.endswith(".js"):
            folder = (FOLDER / name).parent
            imported = re.findall(
                r'^import .*?"(\..+?)";$|^import "(\..+?)";$', (FOLDER / name).read_text(), re.M
            )
            for module in (one or other for one, other in imported):
                assert (folder / module).resolve().is_relative_to(FOLDER), name
                assert (folder / module).is_file(), (name, module)


async def test_drawn_sizes_are_the_servers() -> None:
    """The schema has the names of the sizes and not their pixels, so the page holds them too."""
    rows = re.findall(r"^  (\w+): (\[\d+, \d+\]),$", (FOLDER / "js/sizes.js").read_text(), re.M)
    assert {name: tuple(json.loads(size)) for name, size in rows} == PRESETS


async def test_no_file_of_the_page_is_longer_than_a_reader_can_hold() -> None:
    scripts = {name: (FOLDER / name).read_text().count("\n") for name in FILES if name.endswith(".js")}
    assert {name: lines for name, lines in scripts.items() if lines > 260} == {}
