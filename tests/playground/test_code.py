"""The code that the page shows runs as it stands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.playground.conftest import fill

SECONDS = 90


def code(page: Page, language: str, pictures: int = 1) -> str:
    """Of a request whose prompt is hard to quote."""
    quoted = "it's \"fine\" $HOME `id` \\ é\n'''"
    fill(page, prompt=quoted, output_format="jpeg", num_inference_steps=1, seed=5, num_images=pictures)
    page.get_by_role("tab", name="Code").click()
    page.get_by_role("tab", name=language).click()
    return page.locator(".code-view code:visible").inner_text()


def run(folder: Path, *command: str, names: tuple[str, ...] = ("picture.jpg",)) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    for name in names:
        with Image.open(folder / name) as picture:
            assert (picture.format, picture.size) == ("JPEG", (512, 512))
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on the PATH")
def test_curl_makes_the_picture(page: Page, tmp_path: Path) -> None:
    result = json.loads(run(tmp_path, "sh", "-eu", "-c", code(page, "curl")))
    assert (result["status"], result["seed"]) == ("succeeded", 5)


def test_python_makes_the_picture(page: Page, tmp_path: Path) -> None:
    (tmp_path / "picture.py").write_text(code(page, "Python"))
    assert run(tmp_path, sys.executable, "picture.py").startswith("succeeded")


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on the PATH")
def test_javascript_makes_the_picture(page: Page, tmp_path: Path) -> None:
    (tmp_path / "picture.mjs").write_text(code(page, "JavaScript"))
    assert run(tmp_path, "node", "picture.mjs").startswith("succeeded")


@pytest.mark.parametrize(
    ("language", "command"),
    [("curl", ("sh", "-eu")), ("Python", (sys.executable,)), ("JavaScript", ("node",))],
)
def test_several_pictures_are_all_saved(
    page: Page, tmp_path: Path, language: str, command: tuple[str, ...]
) -> None:
    needed = "curl" if language == "curl" else command[0]
    if shutil.which(needed) is None:
        pytest.skip(f"no {needed} on the PATH")
    (tmp_path / "pictures.mjs").write_text(code(page, language, pictures=2))
    run(tmp_path, *command, "pictures.mjs", names=("picture-1.jpg", "picture-2.jpg"))


def test_code_is_copied_whole(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown = code(page, "Python")
    page.locator(".code-view").get_by_role("button", name="Copy").click()
    expect(page.locator(".code-view .bar .quiet")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").strip() == shown.strip()


def test_code_is_copied_also_where_the_browser_has_no_clipboard_for_pages(page: Page) -> None:
    """As over plain HTTP from another machine."""
    page.evaluate("delete Navigator.prototype.clipboard")
    shown = code(page, "curl")
    page.locator(".code-view").get_by_role("button", name="Copy").click()
    expect(page.locator(".code-view .bar .quiet")).to_have_text("Copied")
    page.get_by_role("tab", name="Form").click()
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("")
    prompt.press("Control+V")
    assert prompt.input_value().strip() == shown.strip()


def test_key_is_never_in_the_code(page: Page) -> None:
    page.evaluate("sessionStorage.setItem('zturbo.key', 'very-secret')")
    for language, variable in [
        ("curl", "$ZTURBO_TOKEN"),
        ("Python", "ZTURBO_TOKEN"),
        ("JavaScript", "ZTURBO_TOKEN"),
    ]:
        shown = code(page, language)
        assert "very-secret" not in shown
        assert variable in shown
