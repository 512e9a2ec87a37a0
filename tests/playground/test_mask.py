"""An image changed in the page: how far it goes, and the mask that is painted over it or loaded."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.playground.conftest import (
    PHONE,
    PHOTOGRAPH,
    NewPage,
    edit,
    hold,
    last,
    request_of,
    run_button,
    run_to_picture,
    stage_is,
    wait_until_ready,
)

SIZE = 512
"""Of the photograph."""


def choose(page: Page, model: str) -> None:
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_role("tab", name="Form").click()
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    page.get_by_label("Prompt", exact=True).fill("a red ball on a green table")


@pytest.fixture
def painting(page: Page) -> Page:
    """The page of a model that takes a mask, with an image, ready to be painted on."""
    choose(page, "tongyi-mai/z-image/turbo/inpainting/lora")
    expect(canvas(page)).to_be_visible()
    return page


def canvas(page: Page) -> Locator:
    return page.get_by_label("Mask: paint what is drawn anew")


def stroke(page: Page, *places: tuple[float, float]) -> None:
    """With the mouse, through these places as shares of the canvas."""
    canvas(page).evaluate("canvas => canvas.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = canvas(page).bounding_box()
    assert box is not None
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def mask_of(page: Page) -> NDArray[np.bool_]:
    """The mask that the server has, once the hand rests."""
    url = page.evaluate(
        "(mask => Promise.all(mask.draft.arriving.values()).then(() => mask.value))"
        "(document.querySelector('zt-mask'))"
    )
    return np.asarray(Image.open(io.BytesIO(page.request.get(url).body())).convert("L")) >= 128


def test_mask_is_painted_with_the_mouse_and_the_rest_of_the_picture_stays(painting: Page) -> None:
    edit(painting, num_inference_steps=2, image_size="auto")
    stroke(painting, (0.25, 0.5), (0.75, 0.5))
    # Run waits for the mask that is on its way.
    run_to_picture(painting)
    mask = mask_of(painting)
    assert mask.shape == (SIZE, SIZE)
    rows, columns = mask.nonzero()
    # The brush is 12 % of the image wide, and round.
    assert abs(np.ptp(rows) - 0.12 * SIZE) < 4
    assert abs(np.ptp(columns) - 0.62 * SIZE) < 6
    assert last(painting)["input"]["strength"] == 1
    url = last(painting)["output"]["image"]
    made, photograph = (
        np.asarray(Image.open(file).convert("RGB"))
        for file in (io.BytesIO(painting.request.get(url).body()), PHOTOGRAPH)
    )
    np.testing.assert_array_equal(made[~mask], photograph[~mask])
    assert not np.array_equal(made[mask], photograph[mask])


def test_strokes_are_taken_back_one_by_one_and_all_at_once(painting: Page) -> None:
    undo, clear = (painting.get_by_role("button", name=name, exact=True) for name in ("Undo", "Clear"))
    expect(undo).to_be_disabled()
    stroke(painting, (0.5, 0.25))
    first = mask_of(painting)
    painting.get_by_label("Brush", exact=True).fill("30")
    painting.keyboard.press("Tab")
    stroke(painting, (0.5, 0.75))
    both = mask_of(painting)
    assert both[: SIZE // 2].sum() == first.sum()
    assert both[SIZE // 2 :].sum() > 5 * first.sum()
    undo.click()
    np.testing.assert_array_equal(mask_of(painting), first)
    clear.click()
    expect(clear).to_be_disabled()
    assert request_of(painting)["mask_image_url"] == ""
    run_button(painting).click()
    painting.get_by_role("tab", name="Form").click()
    expect(painting.locator("#field-mask_image_url-fault")).to_have_text("Mask is needed.")


def test_mask_is_painted_with_keys(painting: Page) -> None:
    canvas(painting).focus()
    for key in ("Space", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight"):
        painting.keyboard.press(key)
    mask = mask_of(painting)
    columns = mask[SIZE // 2].nonzero()[0]
    # From the middle: half a brush to the left of it, and three half ones further to the right.
    assert abs(columns.min() - 0.44 * SIZE) < 4
    assert abs(columns.max() - 0.74 * SIZE) < 4
    painting.keyboard.press("Control+z")
    assert abs(mask_of(painting)[SIZE // 2].nonzero()[0].max() - 0.68 * SIZE) < 4


def test_finger_paints_and_does_not_scroll(new_page: NewPage, url: str) -> None:
    page = new_page(url, viewport=PHONE, has_touch=True)
    wait_until_ready(page)
    choose(page, "tongyi-mai/z-image/turbo/inpainting")
    expect(canvas(page)).to_be_visible()
    canvas(page).evaluate("canvas => canvas.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = canvas(page).bounding_box()
    assert box is not None
    before = page.evaluate("scrollY")
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *shares: float) -> None:
        points = [{"x": box["x"] + box["width"] / 2, "y": box["y"] + y * box["height"]} for y in shares]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.8)
    for share in (0.6, 0.4, 0.2):
        touch("touchMove", share)
    touch("touchEnd")
    rows = mask_of(page)[:, SIZE // 2].nonzero()[0]
    assert abs(rows.min() - 0.14 * SIZE) < 8
    assert abs(rows.max() - 0.86 * SIZE) < 8
    assert page.evaluate("scrollY") == before


def png(size: tuple[int, int], white: tuple[int, int, int, int]) -> dict[str, Any]:
    image = Image.new("RGB", size)
    image.paste("white", white)
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"name": "mask.png", "mimeType": "image/png", "buffer": file.getvalue()}


def test_mask_is_loaded_painted_on_and_given_up_for_an_image_of_another_size(painting: Page) -> None:
    loading = painting.locator("#field-mask_image_url-file")
    loading.set_input_files([png((300, 200), (0, 0, 9, 9))])
    fault = painting.locator("#field-mask_image_url-fault")
    expect(fault).to_have_text("The mask is 300x200 and the image 512x512; both must be of one size.")
    loading.set_input_files([png((SIZE, SIZE), (0, 0, 100, 60))])
    expect(painting.get_by_role("button", name="Undo", exact=True)).to_be_enabled()
    expect(fault).to_be_hidden()
    stroke(painting, (0.5, 0.75))
    mask = mask_of(painting)
    assert mask[:60, :100].all()
    assert not mask[61:250, 101:].any()
    assert mask[SIZE * 3 // 4, SIZE // 2]
    small = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(small, "PNG")
    painting.locator("#field-image_url-file").set_input_files(
        [{"name": "small.png", "mimeType": "image/png", "buffer": small.getvalue()}]
    )
    expect(painting.get_by_role("button", name="Undo", exact=True)).to_be_disabled()
    assert request_of(painting)["mask_image_url"] == ""


def test_restored_request_shows_its_mask(painting: Page) -> None:
    edit(painting, num_inference_steps=1)
    stroke(painting, (0.25, 0.25))
    run_to_picture(painting)
    mask = mask_of(painting)
    painting.get_by_role("button", name="Clear", exact=True).click()
    painting.get_by_role("button", name="Restore", exact=True).click()
    expect(painting.get_by_role("button", name="Undo", exact=True)).to_be_enabled()
    stroke(painting, (0.75, 0.75))
    both = mask_of(painting)
    np.testing.assert_array_equal(both[: SIZE // 2, : SIZE // 2], mask[: SIZE // 2, : SIZE // 2])
    assert both.sum() > mask.sum()


def test_strength_has_a_slider_and_says_which_steps_are_done(page: Page) -> None:
    choose(page, "tongyi-mai/z-image/turbo/image-to-image/lora")
    slider = page.get_by_label("How far from the image, slider")
    expect(slider).to_have_value("0.6")
    slider.fill("0.25")
    edit(page, num_inference_steps=8, image_size="square")
    expect(page.locator("zt-mask, zt-preprocess, .well.map")).to_have_count(0)
    release = hold(page, "**/v1/requests/**")
    run_button(page).click()
    stage_is(page, "running")
    expect(page.locator("zt-progress .step")).to_have_count(2)
    expect(page.locator("zt-progress .step.guided")).to_have_count(0)
    release()
    stage_is(page, "done")
    expect(page.locator(".facts")).to_contain_text("Strength0.25")
    assert last(page)["strength"] == 0.25
