"""The playground in a real browser, chromium, with one `zturbo serve` for all tests.

Its model is the tiny untrained one, in a folder called demo: it draws any size, slowly enough to be stopped.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import skimage
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect, sync_playwright

from tests.models.inference.untrained import CONTROLNET, write_lora, write_untrained
from tests.support.serve_process import ServeProcess

PHOTOGRAPH = Path(skimage.__file__).parent / "data" / "astronaut.png"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None
)
"""The first is what has no window: a page is opened for 0.3 s of the processor instead of 1.2."""
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000
"""A picture takes a second on an idle machine, and tests share theirs."""

DESKTOP = {"width": 1440, "height": 900}
SLOW = {"image_size": "square_hd", "num_inference_steps": 8, "num_images": 4}
"""Of a request that runs until a test stops it."""

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ended with each module: while it lives an event loop runs in this thread; other tests start theirs."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH: apt install chromium-headless-shell")
    with sync_playwright() as playwright:
        # Without a folder of ours Playwright makes a new profile and throws it away.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    data_dir = tmp_path_factory.mktemp("playground") / "data"
    write_lora(data_dir / "loras" / "style.safetensors")
    model = write_untrained(data_dir.parent / "demo")
    server = ServeProcess(
        data_dir,
        *("--io-workers", "1", "--controlnet", str(model / CONTROLNET)),
        model=str(model),
        # Nothing here may need the hub: the port is that of nobody.
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(data_dir / "hub")},
    )
    try:
        server.wait_until_ready()
        yield server
    finally:
        status = server.stop()
    assert status == 0, server.output


@pytest.fixture(scope="session")
def url(server: ServeProcess) -> str:
    return server.wait_until_ready()


NewPage = Callable[..., Page]


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Opens a page in a context of its own; an error in the page's scripts fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def new_page(address: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce"} | options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield new_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(new_page: NewPage, url: str) -> Page:
    """The playground, ready for input."""
    page = new_page(url)
    wait_until_ready(page)
    return page


def wait_until_ready(page: Page) -> None:
    page.locator("body[data-ready]").wait_for()


def fill(page: Page, prompt: str = "a red ball on a green table", **fields: Any) -> None:
    """A request that is soon done; `fields` are put in by the JSON view."""
    page.get_by_role("tab", name="Form").click()
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    page.get_by_alt_text("Control image").wait_for()
    edit(page, **{"image_size": "square", "num_inference_steps": 2, **fields})


def edit(page: Page, **fields: Any) -> None:
    """Changes fields in the JSON view, as a user would type there."""
    body = request_of(page) | fields
    page.get_by_label("The request as JSON").fill(json.dumps(body))
    page.get_by_role("tab", name="Form").click()


def copied(page: Page) -> None:
    """Waits until the page has said so; the button says it for a moment only."""
    expect(page.locator("#announcer")).to_have_text("Copied")


def advanced(page: Page) -> None:
    """Unfolds what the form keeps folded."""
    page.locator(".folded > summary").click()


def example(page: Page, title: str) -> Locator:
    """The card of an example."""
    return page.locator(".example").filter(has_text=title)


def request_of(page: Page) -> dict[str, Any]:
    """The request as the JSON view shows it, which stays open."""
    page.get_by_role("tab", name="JSON").click()
    body: dict[str, Any] = json.loads(page.get_by_label("The request as JSON").input_value())
    return body


def hold(page: Page, address: str) -> Callable[[], None]:
    """Keeps what the page asks of these addresses from the server until the answer of this is called."""
    routes: list[Route] = []
    page.route(address, lambda route: routes.append(route))

    def release() -> None:
        while routes:
            routes.pop(0).continue_()
        page.unroute(address)

    return release


def last(page: Page) -> dict[str, Any]:
    """The newest request, as the server lists it."""
    listed: dict[str, Any] = page.evaluate("fetch('v1/requests?limit=1').then((answer) => answer.json())")
    newest: dict[str, Any] = listed["requests"][0]
    return newest


def run_to_picture(page: Page) -> None:
    run_button(page).click()
    stage_is(page, "done")


def stage_is(page: Page, state: str) -> None:
    page.locator(f"zt-stage[data-state={state}]").wait_for()


def run_button(page: Page) -> Locator:
    """Not by its name alone: the history names requests that run or were stopped."""
    return page.locator("zt-runner .primary")


def stop_button(page: Page) -> Locator:
    return page.locator("zt-runner .halt")
