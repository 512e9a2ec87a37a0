"""What was made before: shown, searched, restored, deleted; kept by the server, not by the page."""

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.playground.conftest import (
    SLOW,
    NewPage,
    edit,
    fill,
    hold,
    request_of,
    run_button,
    run_to_picture,
    stage_is,
    stop_button,
    wait_until_ready,
)


@pytest.fixture
def made(page: Page, url: str) -> Iterator[Page]:
    """The page after one request; what it and the tests before it made is deleted afterwards."""
    fill(page, prompt="a heron in the reeds", seed=1234, control_end=0.9, output_format="webp")
    run_to_picture(page)
    yield page
    for entry in httpx.get(f"{url}/v1/requests").json()["requests"]:
        httpx.delete(f"{url}/v1/requests/{entry['request_id']}")


def test_finished_request_stands_first_in_the_history(made: Page) -> None:
    first = made.locator(".strip button").first
    expect(first).to_have_accessible_name("Show: a heron in the reeds")
    expect(first).to_have_attribute("aria-current", "true")
    expect(first.locator("img")).to_be_visible()


def test_restore_brings_every_field_back(made: Page, new_page: NewPage, url: str) -> None:
    before = request_of(made)
    # Another browser: nothing of it comes from the tab that made it.
    page = new_page(url)
    wait_until_ready(page)
    edit(page, prompt="something else", num_inference_steps=8, stray=True)
    page.locator(".strip button").first.click()
    stage_is(page, "done")
    page.get_by_role("button", name="Restore", exact=True).click()
    assert request_of(page) == before


def test_gallery_finds_opens_and_deletes(made: Page) -> None:
    made.get_by_role("link", name="Gallery").click()
    expect(made).to_have_url(re.compile("#gallery$"))
    search = made.get_by_label("Search the gallery")
    search.fill("no such thing")
    expect(made.get_by_text("Nothing here matches.")).to_be_visible()
    search.fill("heron seed 1234")
    cards = made.locator(".card")
    expect(cards).to_have_count(1)
    cards.get_by_role("button", name="Show: a heron in the reeds").click()
    expect(made.get_by_role("link", name="Create")).to_have_attribute("aria-current", "page")
    stage_is(made, "done")
    made.get_by_role("link", name="Gallery").click()
    with made.expect_download() as download:
        cards.get_by_role("button", name="Download").click()
    assert re.fullmatch(r"zturbo-\w{8}\.webp", download.value.suggested_filename)
    delete = cards.get_by_role("button", name="Delete")
    delete.click()
    expect(cards).to_have_count(1)
    expect(delete).to_have_text("Delete?")
    delete.click()
    expect(cards).to_have_count(0)
    made.reload()
    made.get_by_label("Search the gallery").fill("heron seed 1234")
    expect(made.get_by_text("matches.").or_(made.get_by_text("Nothing here yet"))).to_be_visible()


def test_gallery_leaves_out_failed_ones_and_deletes_several_at_once(made: Page, url: str) -> None:
    bad = {"prompt": "no picture", "image_url": "https://nowhere.invalid/photo.png", "loras": []}
    model = f"{url}/v1/models/tongyi-mai/z-image/turbo/controlnet/lora"
    assert httpx.post(model, params={"wait": 60}, json=bad, timeout=90).json()["status"] == "failed"
    made.reload()
    made.get_by_role("link", name="Gallery").click()
    cards = made.locator(".card")
    expect(cards.filter(has_text="a heron")).to_have_count(1)
    shown = cards.count()
    expect(cards.filter(has_text="no picture")).to_have_count(0)
    made.get_by_role("switch", name="Failed ones too").check()
    expect(cards.filter(has_text="no picture")).to_have_count(1)
    assert cards.count() > shown
    for name in ("Select: no picture (failed)", "Select: a heron in the reeds"):
        made.get_by_label(name).check()
    chosen = made.locator(".chosen")
    expect(chosen).to_contain_text("2 selected")
    with made.expect_download():
        chosen.get_by_role("button", name="Download").click()
    chosen.get_by_role("button", name="Delete").click()
    chosen.get_by_role("button", name="Delete 2?").click()
    expect(cards.filter(has_text=re.compile("no picture|a heron"))).to_have_count(0)
    expect(chosen).to_be_hidden()


def test_gallery_stays_open_over_a_reload_while_the_stage_fills(made: Page) -> None:
    release = hold(made, "**/v1/requests?*")
    made.reload()
    wait_until_ready(made)
    made.get_by_role("link", name="Gallery").click()
    expect(made.get_by_text("Asking the server for your pictures…")).to_be_visible()
    release()
    made.locator("zt-stage[data-state=done]").wait_for(state="attached")
    expect(made.locator(".card").first).to_be_visible()


def test_picture_that_comes_late_does_not_replace_the_one_that_was_asked_for_after_it(made: Page) -> None:
    fill(made, prompt="a crane", seed=1)
    run_to_picture(made)
    release = hold(made, "**/result")
    with made.expect_request("**/result"):
        made.get_by_role("button", name="Show: a heron in the reeds").click()
    edit(made, prompt="a stork", num_inference_steps=1)
    run_button(made).click()
    expect(made.locator(".facts")).to_contain_text("a stork")
    with made.expect_response("**/result") as late:
        release()
    late.value.finished()
    made.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(made.locator(".facts")).to_contain_text("a stork")


def test_what_is_pressed_in_the_gallery_stays_when_another_request_is_done(made: Page) -> None:
    edit(made, prompt="a slow one", image_size="square_hd", num_inference_steps=8)
    run_button(made).click()
    stage_is(made, "running")
    made.get_by_role("link", name="Gallery").click()
    heron = made.locator(".card", has_text="a heron").first
    delete = heron.get_by_role("button", name="Delete")
    delete.click()
    slow = made.locator(".card", has_text="a slow one").first
    expect(slow.get_by_role("button", name="Download")).to_be_visible()
    expect(delete).to_have_text("Delete?")
    made.get_by_label("Search the gallery").focus()
    expect(delete).to_have_text("")


def test_running_request_is_followed_from_another_page(page: Page, new_page: NewPage, url: str) -> None:
    fill(page, prompt="a slow one", **SLOW)
    run_button(page).click()
    # Which of the two is a matter of milliseconds.
    waits_or_runs = re.compile(r"Show: a slow one \((in line|running)\)")
    expect(page.locator(".strip button").first).to_have_accessible_name(waits_or_runs)
    other = new_page(url)
    wait_until_ready(other)
    other.locator(".strip button").first.click()
    stage_is(other, "running")
    stop_button(other).click()
    for each in (page, other):
        expect(each.locator(".frame")).to_contain_text("Stopped")
