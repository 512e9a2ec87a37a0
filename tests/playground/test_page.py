"""The page itself: what it loads, how it fits, whether everybody can use it, and what it says of trouble."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.config import Settings
from app.main import create_app
from tests.playground.conftest import (
    ARTIFACTS,
    DESKTOP,
    PHONE,
    NewPage,
    fill,
    run_button,
    run_to_picture,
    wait_until_ready,
)
from tests.support.http_api import WorkerHands, served
from worker.queue.registry import WorkerInfo

GRAVE = ("serious", "critical")


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path, redis_url=redis_url)


@pytest.fixture
def hands(settings: Settings) -> Iterator[WorkerHands]:
    hands = WorkerHands(settings)
    yield hands
    hands.close()


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in GRAVE]


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than the window."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return pixels


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave(new_page: NewPage, url: str, scheme: str) -> None:
    page = new_page(url, color_scheme=scheme)
    wait_until_ready(page)
    assert violations(page) == []
    page.get_by_role("button", name="Add a LoRA").click()
    run_button(page).click()
    assert violations(page) == []
    fill(page, num_inference_steps=1)
    run_to_picture(page)
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Raw JSON").click()
    assert violations(page) == []
    for tab in ("JSON", "Code"):
        page.get_by_role("tab", name=tab).click()
        assert violations(page) == []
    page.get_by_role("link", name="Gallery").click()
    assert violations(page) == []


def test_page_asks_no_other_server(new_page: NewPage, url: str) -> None:
    page = new_page("about:blank")
    asked = []
    refused = []
    page.on("request", lambda request: asked.append(request.url))
    page.on(
        "console",
        lambda message: refused.append(message.text) if "Content Security" in message.text else None,
    )
    page.goto(url)
    wait_until_ready(page)
    fill(page, num_inference_steps=1)
    run_to_picture(page)
    assert {address for address in asked if not address.startswith((f"{url}/", "data:", "blob:"))} == set()
    assert refused == []


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 2560])
def test_page_fits_every_width(new_page: NewPage, url: str, width: int) -> None:
    page = new_page(url, viewport={"width": width, "height": 844})
    wait_until_ready(page)
    assert overflow(page) <= 0
    for tab in ("JSON", "Code", "Form"):
        page.get_by_role("tab", name=tab).click()
        assert overflow(page) <= 0, tab
    expect(run_button(page)).to_be_in_viewport()
    page.get_by_role("link", name="Gallery").click()
    assert overflow(page) <= 0


def test_picture_comes_into_view_on_a_phone(new_page: NewPage, url: str) -> None:
    page = new_page(url, viewport=PHONE)
    wait_until_ready(page)
    fill(page, num_inference_steps=1)
    run_to_picture(page)
    expect(page.locator("zt-compare")).to_be_in_viewport(ratio=0.9)


SHIFTS = """
    window.shifts = [];
    new PerformanceObserver((seen) => shifts.push(...seen.getEntries().map(({ value }) => value)))
        .observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_moves_while_the_page_comes(new_page: NewPage, url: str, viewport: dict[str, int]) -> None:
    page = new_page("about:blank", viewport=viewport)
    page.add_init_script(SHIFTS)
    page.goto(url)
    wait_until_ready(page)
    expect(page.locator("zt-banner")).to_contain_text("demo model")
    assert sum(page.evaluate("shifts")) < 0.01


def test_nothing_moves_when_the_picture_comes(page: Page) -> None:
    fill(page, image_size="landscape_16_9", num_inference_steps=1)
    frame = page.locator(".frame")
    before = frame.bounding_box()
    run_button(page).click()
    page.locator("zt-stage[data-state=running]").wait_for()
    assert frame.bounding_box() == before
    page.locator("zt-stage[data-state=done]").wait_for()
    assert frame.bounding_box() == before


def test_keyboard_reaches_run_from_the_top(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the picture")).to_be_focused()
    run = run_button(page)
    for _ in range(60):
        page.keyboard.press("Tab")
        if run.evaluate("button => button === document.activeElement"):
            return
    pytest.fail("Run is not reached")


def test_tabs_move_by_arrow_keys(page: Page) -> None:
    page.get_by_role("tab", name="Form").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="JSON")).to_be_focused()
    expect(page.get_by_label("The request as JSON")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Code")).to_have_attribute("aria-selected", "true")


def test_key_is_asked_for_once_and_kept_in_this_tab(new_page: NewPage, settings: Settings) -> None:
    settings = settings.model_copy(update={"api_keys": "ann:secret-a"})
    with served(create_app(settings), settings) as url:
        page = new_page(url)
        key = page.get_by_label("Key", exact=True)
        key.fill("wrong")
        key.press("Enter")
        expect(page.get_by_text("That key was not accepted.")).to_be_visible()
        assert violations(page) == []
        key.fill("secret-a")
        key.press("Enter")
        wait_until_ready(page)
        page.reload()
        wait_until_ready(page)
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.get_by_role("button", name="Forget the key").click()
        expect(page.get_by_role("dialog")).to_be_visible()


def test_banner_says_what_is_missing_and_what_mends_it(
    new_page: NewPage, settings: Settings, hands: WorkerHands
) -> None:
    with served(create_app(settings), settings) as url:
        page = new_page(url)
        wait_until_ready(page)
        banner = page.locator("zt-banner")
        expect(banner).to_contain_text("No gpu worker is running")
        expect(banner.locator("code")).to_have_text(["zturbo worker io", "zturbo worker gpu"])
        assert violations(page) == []
        hands.register(
            WorkerInfo("io-1", "io", "ready"),
            WorkerInfo("gpu-1", "gpu", "setup_failed", detail="The weights are not here: `zturbo pull`."),
        )
        expect(banner.locator("code")).to_have_text(["zturbo pull"])
        hands.register(WorkerInfo("gpu-1", "gpu", "ready", model="z-image-turbo", device="cuda:0"))
        expect(banner).to_be_empty()
        expect(page.locator("zt-health")).to_contain_text("Ready")
        expect(page.locator("zt-health")).to_contain_text("z-image-turbo · cuda:0")


def test_server_that_goes_away_is_told_of_and_found_again(page: Page) -> None:
    page.context.set_offline(True)
    fill_without_upload(page)
    run_button(page).click()
    expect(page.locator("zt-banner")).to_contain_text("zturbo serve")
    expect(page.locator("zt-runner").get_by_role("alert")).to_contain_text("does not answer")
    page.context.set_offline(False)
    expect(page.locator("zt-health")).to_contain_text("Ready")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox")


def fill_without_upload(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("a fox")
    page.get_by_label("Image", exact=True).fill("https://example.com/photo.jpg")


def test_demo_model_is_named_as_such_until_dismissed(page: Page) -> None:
    notice = page.locator("zt-banner")
    expect(notice).to_contain_text(re.compile("demo model.*zturbo pull", re.DOTALL))
    page.get_by_role("button", name="Understood").click()
    page.reload()
    wait_until_ready(page)
    expect(page.locator("zt-health")).to_contain_text("Ready")
    expect(notice).to_be_empty()


@pytest.mark.parametrize("status", [None, 503])
def test_page_goes_on_by_asking_where_the_event_stream_breaks(page: Page, status: int | None) -> None:
    breaks = (lambda route: route.fulfill(status=status)) if status else (lambda route: route.abort())
    page.route("**/v1/requests/*/events", breaks)
    page.route("**/v1/requests/*/status", breaks, times=1)
    fill(page, num_inference_steps=1)
    run_to_picture(page)


@pytest.mark.parametrize(
    ("name", "viewport", "scheme"),
    [("light", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "dark")],
)
def test_screenshots_for_people(
    new_page: NewPage, url: str, name: str, viewport: dict[str, int], scheme: str
) -> None:
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page = new_page(url, viewport=viewport, color_scheme=scheme)
    wait_until_ready(page)
    fill(
        page,
        prompt="An astronaut in an orange suit, oil painting",
        preprocess="canny",
        control_end=0.8,
        seed=3,
    )
    run_to_picture(page)
    page.get_by_role("button", name="Compare").click()
    page.screenshot(path=ARTIFACTS / f"{name}.png")
    page.get_by_role("link", name="Gallery").click()
    page.screenshot(path=ARTIFACTS / f"{name}-gallery.png")
