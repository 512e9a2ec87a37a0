"""From Run to a picture, or to a sentence that says why there is none."""

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.playground.conftest import (
    PHONE,
    SLOW,
    NewPage,
    copied,
    edit,
    example,
    fill,
    last,
    request_of,
    run_button,
    run_to_picture,
    stage_is,
    stop_button,
    wait_until_ready,
)


def test_request_runs_to_a_picture_with_its_facts(page: Page) -> None:
    fill(page, seed=7)
    run_to_picture(page)
    picture = page.locator("zt-compare .under")
    expect(picture).to_have_attribute("alt", "Made of: a red ball on a green table")
    assert picture.evaluate(
        "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    ) == [512, 512]
    facts = page.locator(".facts")
    expect(facts).to_contain_text(re.compile(r"Seed\s*7"))
    expect(facts).to_contain_text(re.compile(r"denoise [\d.]+ m?s"))
    expect(page.locator("#announcer")).to_have_text("The picture is done.")
    page.get_by_text("Raw JSON").click()
    expect(page.get_by_label("Result as JSON")).to_contain_text('"status": "succeeded"')
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert re.fullmatch(r"zturbo-\w{8}\.png", download.value.suggested_filename)


@pytest.mark.parametrize("title", ["From words", "From a photo’s edges", "From a depth map", "From a pose"])
def test_example_is_a_picture_by_one_click(page: Page, title: str) -> None:
    card = example(page, title)
    assert card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    prompt = card.locator(".note").inner_text()
    card.click()
    stage_is(page, "done")
    expect(page.locator(".facts")).to_contain_text(prompt)
    assert ("image_url" in last(page)["input"]) == (title != "From words")
    compare = page.get_by_role("button", name="Compare")
    expect(compare).to_have_count(0 if title == "From words" else 1)


def test_prompt_alone_is_drawn_by_the_model_that_needs_no_image(page: Page) -> None:
    expect(page.locator("#model-note")).to_contain_text("Z-Image Turbo draws it")
    page.get_by_label("Prompt", exact=True).fill("a red ball on grass")
    edit(page, num_inference_steps=1)
    run_to_picture(page)
    newest = last(page)
    assert newest["model_id"] == "tongyi-mai/z-image/turbo"
    assert newest["input"]["prompt"] == "a red ball on grass"


def test_examples_are_in_sight_at_once_on_a_phone_and_the_form_with_them(new_page: NewPage, url: str) -> None:
    page = new_page(url, viewport=PHONE)
    wait_until_ready(page)
    expect(page.locator(".example")).to_have_count(4)
    for card in page.locator(".example").all():
        expect(card).to_be_in_viewport(ratio=1)
    expect(page.get_by_label("Prompt", exact=True)).to_be_in_viewport(ratio=1)


def test_ctrl_enter_runs_and_stop_stops(page: Page) -> None:
    fill(page, **SLOW)
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    stage_is(page, "running")
    stop_button(page).click()
    expect(page.locator(".frame")).to_contain_text("Stopped")
    expect(stop_button(page)).to_be_hidden()


def test_second_run_waits_in_the_strip_and_is_watched_when_its_turn_comes(page: Page) -> None:
    fill(page, prompt="the first", **SLOW)
    run_button(page).click()
    stage_is(page, "running")
    for prompt in ("the second", "the third"):
        edit(page, prompt=prompt, image_size="square", num_inference_steps=1, num_images=1)
        run_button(page).click()
        expect(page.get_by_role("button", name=f"Stop: {prompt}")).to_be_visible()
    page.get_by_role("button", name="Stop: the third").click()
    expect(page.get_by_role("button", name="Show: the third (stopped)")).to_be_visible()
    # While one runs the gallery is open, and so is what was made before.
    page.get_by_role("link", name="Gallery").click()
    expect(page.locator(".card").first).to_be_visible()
    page.get_by_role("link", name="Create").click()
    stop_button(page).click()
    expect(page.locator(".facts")).to_contain_text("the second")
    stage_is(page, "done")


def test_what_is_refused_leaves_the_picture_on_the_stage(page: Page) -> None:
    fill(page, num_inference_steps=1)
    run_to_picture(page)
    picture = page.locator("zt-compare .under").get_attribute("src")
    edit(page, num_inference_steps=99)
    run_button(page).click()
    expect(page.locator("#field-num_inference_steps-fault")).to_contain_text("must be at most 8")
    expect(page.locator("#field-num_inference_steps")).to_be_focused()
    stage_is(page, "done")
    expect(page.locator("zt-compare .under")).to_have_attribute("src", picture or "")


def test_progress_tells_the_step_and_marks_the_guided_ones(page: Page) -> None:
    fill(page, **SLOW, control_end=0.5)
    run_button(page).click()
    bar = page.get_by_role("progressbar", name="Steps done")
    expect(bar).to_have_attribute("aria-valuemax", "8")
    assert bar.locator(".guided").count() == 4
    expect(bar).to_have_attribute("aria-valuetext", re.compile("Step [2-8] of 8"))
    stop_button(page).click()
    expect(page.locator(".frame")).to_contain_text("Stopped")


def test_preview_is_shown_while_it_runs(page: Page) -> None:
    fill(page, **SLOW)
    run_button(page).click()
    preview = page.get_by_alt_text("Preview")
    expect(preview).to_be_visible()
    assert preview.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    expect(page.locator("zt-progress")).to_contain_text(re.compile(r"about \d+ s left"))
    stop_button(page).click()
    expect(page.locator(".frame")).to_contain_text("Stopped")


def test_failed_request_says_why(page: Page) -> None:
    fill(page, image_url="https://nowhere.invalid/photo.png")
    run_button(page).click()
    alert = page.locator(".frame").get_by_role("alert")
    expect(alert).to_contain_text("This did not work")
    expect(alert).to_contain_text("image_url")


def test_empty_field_is_named_and_focused(page: Page) -> None:
    run_button(page).click()
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_be_focused()
    expect(prompt).to_have_accessible_description("Prompt is needed.")
    expect(page.locator("zt-runner").get_by_role("alert")).to_have_text("Prompt is needed.")
    prompt.fill("a fox")
    expect(page.locator("zt-runner").get_by_role("alert")).to_be_empty()


def test_unknown_field_is_sent_and_the_servers_warning_shown(page: Page) -> None:
    fill(page, num_inference_steps=1, guidance=3)
    run_button(page).click()
    expect(page.locator("zt-runner").get_by_role("alert")).to_contain_text("'guidance' was ignored")
    stage_is(page, "done")


def test_reload_finds_the_request_and_the_form_again(page: Page) -> None:
    fill(page, prompt="a lighthouse", seed=11)
    before = request_of(page)
    run_to_picture(page)
    page.reload()
    stage_is(page, "done")
    expect(page.locator(".facts")).to_contain_text("a lighthouse")
    assert request_of(page) == before


def test_several_pictures_are_a_grid_and_each_has_its_seed(page: Page) -> None:
    fill(page, num_inference_steps=1, seed=7, num_images=4)
    run_button(page).click()
    stage_is(page, "done")
    group = page.get_by_role("group", name="Pictures").get_by_role("button")
    expect(group).to_have_count(4)
    expect(page.locator(".facts")).to_contain_text("7, 8, 9, 10")
    expect(page.locator(".strip .count").first).to_have_text("4")
    page.get_by_role("button", name="Picture 2 of 4, seed 8").click()
    expect(page.locator(".facts")).to_contain_text(re.compile(r"Seed\s*8"))
    page.get_by_role("button", name="All 4").click()
    expect(group).to_have_count(4)
    page.get_by_role("link", name="Gallery").click()
    expect(page.locator(".card .count").first).to_have_text("4")
    expect(page.locator(".card").first.locator(".many img")).to_have_count(4)


def test_picture_opens_at_full_size_and_goes_on_with_the_next_seed(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fill(page, num_inference_steps=1, seed=7, num_images=2)
    run_button(page).click()
    page.get_by_role("button", name="Picture 1 of 2, seed 7").click()
    page.get_by_role("button", name="Open at full size").click()
    box = page.get_by_role("dialog", name="The picture")
    expect(box.locator(".lightbox-facts")).to_have_text("512 × 512 · seed 7")
    page.keyboard.press("ArrowRight")
    expect(box.locator(".lightbox-facts")).to_have_text("512 × 512 · seed 8")
    box.get_by_role("button", name="Full size").click()
    assert box.locator("img").bounding_box() == box.locator("img").bounding_box() | {
        "width": 512,
        "height": 512,
    }
    box.get_by_role("button", name="Copy").click()
    copied(page)
    types = "navigator.clipboard.read().then(([item]) => item.types)"
    assert page.evaluate(types) == ["image/png"]
    box.get_by_role("button", name="Next seed").click()
    expect(box).to_be_hidden()
    page.get_by_role("button", name="Picture 1 of 2, seed 9").wait_for()
    assert last(page)["seed"] == 9


def test_tiny_picture_is_shown_in_whole_pixels_and_not_as_a_blur(page: Page) -> None:
    fill(page, num_inference_steps=1)
    small = io.BytesIO()
    Image.new("RGB", (128, 128), "teal").save(small, "PNG")
    page.route("**/v1/files/**", lambda route: route.fulfill(body=small.getvalue(), content_type="image/png"))
    run_to_picture(page)
    shown = page.locator("zt-compare .under")
    expect(shown).to_have_css("image-rendering", "pixelated")
    expect(page.locator(".strip img").first).to_have_css("image-rendering", "pixelated")
    box = shown.bounding_box()
    assert box is not None
    assert (box["width"], box["height"]) == (384, 384)
    page.get_by_role("button", name="Open at full size").click()
    large = page.get_by_role("dialog", name="The picture").locator("img")
    expect(large).to_have_css("image-rendering", "pixelated")
    expect(large).to_have_css("width", "384px")


def test_compare_slider_lays_the_control_image_over_the_picture(page: Page) -> None:
    fill(page)
    run_to_picture(page)
    page.get_by_role("button", name="Compare").click()
    slider = page.get_by_label("How much of the control image lies over the picture")
    expect(slider).to_be_focused()
    over = page.locator("zt-compare .over")
    expect(over).to_have_css("clip-path", "inset(0px 50% 0px 0px)")
    slider.press("ArrowRight")
    expect(over).to_have_css("clip-path", "inset(0px 49% 0px 0px)")
    slider.press("Home")
    expect(over).to_have_css("clip-path", "inset(0px 100% 0px 0px)")
    assert over.evaluate("image => image.decode().then(() => image.naturalWidth)") == 512
    page.get_by_role("button", name="Compare").click()
    expect(over).not_to_be_attached()


def test_picture_becomes_the_control_image_and_its_seed_is_locked(page: Page) -> None:
    fill(page, seed=-1)
    run_to_picture(page)
    page.get_by_role("button", name="Use as image").click()
    page.get_by_role("button", name="Use this seed again").click()
    shown = page.locator("zt-compare .under").get_attribute("src")
    body = request_of(page)
    assert body["image_url"] == shown
    assert str(body["seed"]) in page.locator(".facts").inner_text()


def test_lora_report_says_how_many_keys_matched(page: Page) -> None:
    fill(page, num_inference_steps=1, loras=[{"path": "style.safetensors", "scale": 0.5}])
    run_to_picture(page)
    expect(page.locator(".facts")).to_contain_text(
        re.compile(r"style\.safetensors × 0\.5: 24 of 24 keys matched")
    )


def test_edit_after_a_run_changes_what_is_sent_next(page: Page) -> None:
    fill(page, num_inference_steps=1, seed=1)
    run_to_picture(page)
    edit(page, seed=2)
    run_button(page).click()
    expect(page.locator(".facts")).to_contain_text(re.compile(r"Seed\s*2"))
