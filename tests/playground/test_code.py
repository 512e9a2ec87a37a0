"""The code that the page shows runs as it stands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.playground.conftest import copied, edit, fill

SECONDS = 90


def code(page: Page, language: str, pictures: int = 1) -> str:
    """Of a request whose prompt is hard to quote."""
    quoted = "it's \"fine\" $HOME `id` \\ é\n'''"
    fill(page, prompt=quoted, output_format="jpeg", num_inference_steps=1, seed=5, num_images=pictures)
    page.get_by_role("tab", name="Code").click()
    page.get_by_role("tab", name=language).click()
    return page.locator(".code-view code:visible").inner_text()


LANGUAGES = {"curl": ("sh", "-eu"), "Python": (sys.executable,), "JavaScript": ("node",)}


def run(folder: Path, language: str, text: str) -> str:
    """What the code writes when it is run in a folder."""
    (folder / "picture.mjs").write_text(text)
    command = (*LANGUAGES[language], "picture.mjs")
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("language", ["Python", "JavaScript"])
@pytest.mark.parametrize("pictures", [1, 2])
def test_program_saves_every_picture(page: Page, tmp_path: Path, language: str, pictures: int) -> None:
    if shutil.which(LANGUAGES[language][0]) is None:
        pytest.skip(f"no {LANGUAGES[language][0]} on the PATH")
    text = code(page, language, pictures)
    if pictures == 2:
        # As with a picture that takes longer than one call waits.
        assert "?wait=60" in text
        text = text.replace("?wait=60", "?wait=0.01")
    assert run(tmp_path, language, text).startswith("succeeded, seed 5")
    names = ["picture.jpg"] if pictures == 1 else ["picture-1.jpg", "picture-2.jpg"]
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert (picture.format, picture.size) == ("JPEG", (512, 512))


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on the PATH")
def test_curl_is_one_line_that_answers_the_result(page: Page, tmp_path: Path) -> None:
    line = code(page, "curl")
    assert line.count("\n") <= 1
    result = json.loads(run(tmp_path, "curl", line))
    assert (result["status"], result["seed"]) == ("succeeded", 5)
    assert page.request.get(result["output"]["image"]).ok


def test_code_leaves_out_what_the_server_takes_of_itself(page: Page) -> None:
    edit(page, prompt="a fox", num_inference_steps=8, control_scale=0.5, seed=2**63 - 1)
    page.get_by_role("tab", name="Code").click()
    shown = page.locator(".code-view code:visible").inner_text()
    # Without an image the request goes to the model that needs none.
    assert "/v1/models/tongyi-mai/z-image/turbo?wait=60" in shown
    body = json.loads(shown.partition(" -d '")[2].rstrip().removesuffix("'"))
    assert body == {"prompt": "a fox", "seed": 2**63 - 1}
    expect(page.locator(".code-view .code-text:visible").first).to_be_visible()


def test_code_is_copied_whole(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown = code(page, "Python")
    page.locator(".code-view").get_by_role("button", name="Copy").click()
    copied(page)
    assert page.evaluate("navigator.clipboard.readText()").strip() == shown.strip()


def test_every_dialects_name_of_the_chosen_model_is_shown_and_copied_by_keys(page: Page, url: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    served = page.request.get(f"{url}/v1/models").json()["models"]
    page.locator(".called summary").press("Enter")
    for model in served:
        page.get_by_label("Model", exact=True).select_option(model["model_id"])
        expect(page.locator(".dialects code")).to_have_text([each["model"] for each in model["dialects"]])
        expect(page.locator(".dialects code").first).to_be_visible()
    page.get_by_role("button", name="Copy what fal calls it").press("Enter")
    copied(page)
    assert page.evaluate("navigator.clipboard.readText()") == "fal-ai/z-image/turbo/inpaint/lora"


def test_code_is_copied_also_where_the_browser_has_no_clipboard_for_pages(page: Page) -> None:
    """As over plain HTTP from another machine."""
    page.evaluate("delete Navigator.prototype.clipboard")
    shown = code(page, "curl")
    page.locator(".code-view").get_by_role("button", name="Copy").click()
    copied(page)
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
