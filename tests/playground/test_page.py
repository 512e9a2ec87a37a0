"""The page itself: what it loads, how it fits, whether everybody can use it, and what it says of trouble."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.config import Settings
from app.main import create_app
from models.command import zturbo
from tests.playground.conftest import (
    DESKTOP,
    PHONE,
    NewPage,
    advanced,
    fill,
    run_button,
    run_to_picture,
    wait_until_ready,
)
from tests.support.http_api import WorkerHands, served
from tests.support.made_up import add_made_up_endpoint
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
    page.locator(".called summary").click()
    page.get_by_role("button", name="Add a LoRA").click()
    run_button(page).click()
    assert violations(page) == []
    fill(page, num_inference_steps=1)
    run_to_picture(page)
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Raw JSON").click()
    assert violations(page) == []
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("button", name="Open at full size").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
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
    # The banner names the command as it is called here, wherever that is.
    page.locator(".banner code").first.evaluate("code => code.textContent = '/folder'.repeat(20)")
    page.locator(".called summary").click()
    assert overflow(page) <= 0
    for tab in ("JSON", "Code", "Form"):
        page.get_by_role("tab", name=tab).click()
        assert overflow(page) <= 0, tab
    expect(run_button(page)).to_be_in_viewport()
    page.get_by_role("link", name="Gallery").click()
    assert overflow(page) <= 0


def test_tablet_has_the_form_beside_the_picture(new_page: NewPage, url: str) -> None:
    page = new_page(url, viewport={"width": 640, "height": 900})
    wait_until_ready(page)
    form, work = page.locator(".panel").bounding_box(), page.locator(".work").bounding_box()
    assert form is not None
    assert work is not None
    assert form["x"] + form["width"] <= work["x"] + 1


def test_fingers_find_targets_of_44_pixels_and_words_for_them(new_page: NewPage, url: str) -> None:
    page = new_page(url, viewport=PHONE, has_touch=True, is_mobile=True)
    wait_until_ready(page)
    expect(page.get_by_text("Tap to choose")).to_be_visible()
    expect(page.get_by_text("Drop, paste or choose")).to_be_hidden()
    page.locator(".called summary").click()
    small = page.locator(
        "button:visible, select:visible, .called summary, input[type=text]:visible"
    ).evaluate_all(
        """elements => elements.filter((element) => !element.classList.contains("ask"))
            .map((element) => [element.outerHTML, element.getBoundingClientRect().height])
            .filter(([, height]) => height < 43.9)"""
    )
    assert small == []


def test_history_stands_above_the_fold(page: Page) -> None:
    fill(page, num_inference_steps=1)
    run_to_picture(page)
    expect(page.locator(".strip .thumb").first).to_be_in_viewport(ratio=1)


def test_documents_are_one_press_away_and_lead_back(page: Page) -> None:
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_role("heading", name="HTTP API", exact=True)).to_be_visible()
    assert violations(page) == []
    page.get_by_role("link", name="When something does not work").click()
    expect(page.get_by_role("heading", name="When something does not work")).to_be_visible()
    page.set_viewport_size(PHONE)
    assert overflow(page) <= 0
    page.get_by_role("link", name="Playground").click()
    wait_until_ready(page)


@pytest.mark.parametrize("name", ["API", "Documents", "every field and route", "the documents"])
def test_links_of_the_page_lead_somewhere(page: Page, name: str) -> None:
    page.get_by_role("tab", name="Code").click()
    link = page.get_by_role("link", name=name, exact=True)
    expect(link).to_be_visible()
    answer = page.request.get(link.evaluate("link => link.href"))
    assert answer.ok
    assert answer.headers["content-type"].startswith("text/html")


def test_theme_is_chosen_and_kept(new_page: NewPage, url: str) -> None:
    page = new_page(url, color_scheme="light")
    wait_until_ready(page)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark


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
    run_button(page).click()
    page.locator("zt-stage:not([data-state=rest])").wait_for()
    before = frame.bounding_box()
    assert before is not None
    assert before["width"] / before["height"] == pytest.approx(16 / 9, rel=0.02)
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


def stop_clock(page: Page) -> None:
    """What waits in the page waits until the test lets time go on."""
    page.clock.install(time=0)
    page.clock.pause_at(1)


def test_lost_part_is_told_of_and_the_page_loads_itself_again(new_page: NewPage, url: str) -> None:
    page = new_page("about:blank")
    stop_clock(page)
    page.route("**/js/page.js", lambda route: route.abort(), times=1)
    page.goto(url)
    lost = page.locator(".lost")
    expect(lost).to_contain_text("A part of this page did not arrive. Trying again in 3 s.")
    expect(lost.get_by_role("button", name="Reload")).to_be_visible()
    page.clock.run_for(3_000)
    wait_until_ready(page)
    expect(lost).to_have_count(0)


def test_models_that_do_not_come_at_first_are_asked_for_again(new_page: NewPage, url: str) -> None:
    page = new_page("about:blank")
    stop_clock(page)
    page.route("**/v1/models", lambda route: route.fulfill(status=503, json={}), times=1)
    page.goto(url)
    expect(page.locator(".lost")).to_contain_text("The server answered 503.")
    expect(page.locator(".skeleton")).to_be_visible()
    page.get_by_role("button", name="Reload").click()
    wait_until_ready(page)


def test_page_is_one_sheet_and_two_scripts(new_page: NewPage, url: str) -> None:
    """Each file more costs a way to the server and back, and a browser has six at a time."""
    page = new_page("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.goto(url)
    wait_until_ready(page)
    files = [name for name in asked if name.endswith((".js", ".css", ".json"))]
    assert sorted(files) == ["boot.js", "page.css", "page.js"]
    assert asked.count("models") == 1


def test_key_is_asked_for_once_and_kept_in_this_tab(new_page: NewPage, settings: Settings) -> None:
    settings = settings.model_copy(update={"api_keys": "ann:secret-a"})
    with served(create_app(settings), settings) as url:
        page = new_page(url)
        expect(page.get_by_role("heading", name="This server needs a key")).to_be_visible()
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


def test_new_endpoint_of_the_catalog_is_here_with_its_fields_and_names(
    new_page: NewPage, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_made_up_endpoint(monkeypatch)
    with served(create_app(settings), settings) as url:
        page = new_page(url)
        wait_until_ready(page)
        page.get_by_label("Model", exact=True).select_option(label="Z-Image Turbo Grain")
        advanced(page)
        expect(page.get_by_role("spinbutton", name="Grain")).to_have_value("0.25")
        expect(page.locator(".dialects dt")).to_contain_text(["RunComfy", "OpenAI", "Hugging Face"])


def test_banner_says_what_is_missing_and_what_mends_it(
    new_page: NewPage, settings: Settings, hands: WorkerHands
) -> None:
    with served(create_app(settings), settings) as url:
        page = new_page(url)
        wait_until_ready(page)
        banner = page.locator("zt-banner")
        expect(banner).to_contain_text("No gpu worker is running")
        expect(banner.locator("code")).to_have_text([f"{zturbo()} worker io", f"{zturbo()} worker gpu"])
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
        hands.register(WorkerInfo("gpu-1", "gpu", "asleep"))
        page.reload()
        expect(page.locator("zt-health")).to_contain_text("Asleep")
        expect(page.locator("zt-health")).to_contain_text("the next request wakes it")
        expect(banner).to_be_empty()


def test_server_that_goes_away_is_told_of_and_found_again(page: Page) -> None:
    page.context.set_offline(True)
    fill_without_upload(page)
    run_button(page).click()
    expect(page.locator("zt-banner")).to_contain_text(f"{zturbo()} serve")
    expect(page.locator("zt-runner").get_by_role("alert")).to_contain_text("does not answer")
    page.context.set_offline(False)
    expect(page.locator("zt-health")).to_contain_text("Ready")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox")


def fill_without_upload(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("a fox")
    page.get_by_label("Image", exact=True).fill("https://example.com/photo.jpg")


def test_demo_model_is_named_as_such_until_dismissed(page: Page) -> None:
    notice = page.locator("zt-banner")
    expect(notice).to_contain_text(re.compile(f"demo model.*{zturbo()} pull", re.DOTALL))
    page.get_by_role("button", name="Got it").click()
    page.reload()
    wait_until_ready(page)
    expect(page.locator("zt-health")).to_contain_text("Ready")
    expect(notice).to_be_empty()


def test_header_follows_a_lost_stream(page: Page) -> None:
    fill(page, num_inference_steps=1)
    page.route("**/readyz", lambda route: route.abort())
    page.route("**/v1/requests/*/*", lambda route: route.abort())
    run_button(page).click()
    # Left alone it asks again 15 s after it was ready.
    expect(page.locator("zt-health")).to_contain_text("No answer", timeout=10_000)


@pytest.mark.parametrize("status", [None, 503])
def test_page_goes_on_by_asking_where_the_event_stream_breaks(page: Page, status: int | None) -> None:
    breaks = (lambda route: route.fulfill(status=status)) if status else (lambda route: route.abort())
    page.route("**/v1/requests/*/events", breaks)
    page.route("**/v1/requests/*/status", breaks, times=1)
    fill(page, num_inference_steps=1)
    run_to_picture(page)
