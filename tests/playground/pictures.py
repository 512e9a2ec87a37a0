"""Makes the README's pictures of the playground anew, from the page with the demo model.

python -m tests.playground.pictures
"""

import io
import re
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.playground.conftest import (
    ARGUMENTS,
    CHROMIUM,
    PHONE,
    edit,
    example,
    run_button,
    run_to_picture,
    stage_is,
    wait_until_ready,
)
from tests.support.serve_process import ServeProcess

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WINDOW = {"width": 1280, "height": 860}
QUALITY = 82
SCHEMES: dict[Literal["light", "dark"], str] = {"light": "playground.webp", "dark": "playground-dark.webp"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = ServeProcess(Path(folder) / "data")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            page = browser.new_page(viewport=WINDOW, reduced_motion="reduce")
            page.goto(server.wait_until_ready())
            wait_until_ready(page)
            draw(page)
            for scheme, name in SCHEMES.items():
                page.emulate_media(color_scheme=scheme)
                save(page, IMAGES / name)
            page.set_viewport_size(PHONE)
            page.get_by_role("button", name="Compare").scroll_into_view_if_needed()
            # Out from under the page's head.
            page.mouse.wheel(0, -60)
            page.wait_for_timeout(300)
            save(page, IMAGES / "playground-phone.webp")
        finally:
            browser.close()
            server.stop()


def draw(page: Page) -> None:
    """Leaves the page with a picture compared with its map, and others below it."""
    page.get_by_role("button", name="Got it").click()
    for title in ("From a pose", "From a depth map", "From words"):
        example(page, title).click()
        stage_is(page, "done")
        page.evaluate("sessionStorage.removeItem('zturbo.shown')")
        page.reload()
    edit(page, prompt="A red ball and a blue box on grass", num_images=4, seed=1)
    run_to_picture(page)
    page.evaluate("sessionStorage.removeItem('zturbo.shown')")
    page.reload()
    example(page, "From a photo’s edges").click()
    stage_is(page, "done")
    edit(page, seed=4)
    run_button(page).click()
    expect(page.locator(".facts")).to_contain_text(re.compile(r"Seed\s*4\D"))
    page.get_by_role("button", name="Compare").click()
    page.get_by_label("How much of the control image").fill("28")


def save(page: Page, path: Path) -> None:
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(path, quality=QUALITY, method=6)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
