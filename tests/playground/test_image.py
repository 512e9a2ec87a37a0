"""The control image and its map: chosen, dropped, pasted or by URL, and told from a photograph."""

import base64
import io
import re

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from models.command import zturbo
from tests.playground.conftest import (
    DESKTOP,
    PHONE,
    PHOTOGRAPH,
    NewPage,
    edit,
    hold,
    last,
    request_of,
    run_button,
    stage_is,
    wait_until_ready,
)


def test_photograph_is_no_map_and_the_page_offers_to_make_one(page: Page, url: str) -> None:
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    notice = page.locator(".notice")
    expect(notice).to_contain_text("looks like a photograph")
    notice.get_by_role("button", name="Edges").click()
    expect(notice).to_be_hidden()
    assert request_of(page)["preprocess"] == "canny"
    page.get_by_role("tab", name="Form").click()
    for name in ("depth-map.png", "pose-map.png"):
        data = page.request.get(f"{url}/playground/examples/{name}").body()
        file = {"name": name, "mimeType": "image/png", "buffer": data}
        page.get_by_role("radio", name="As it is").check()
        page.locator("#field-image_url-file").set_input_files([file])
        expect(page.locator(".image-about")).to_contain_text(f"{name} · ")
        expect(page.locator(".image-about")).to_contain_text("512 × 512")
        expect(notice).to_be_hidden()


def test_photograph_on_another_server_is_seen_in_its_map(page: Page, url: str) -> None:
    file = {"name": "photo.png", "mimeType": "image/png", "buffer": PHOTOGRAPH.read_bytes()}
    made = page.request.post(f"{url}/v1/files", multipart={"file": file}).json()["url"]
    answer = {"control_image": made, "width": 512, "height": 512}
    page.route("**/v1/preprocess", lambda route: route.fulfill(json=answer))
    page.get_by_label("Image", exact=True).fill("https://example.com/photo.png")
    expect(page.locator(".notice")).to_contain_text("looks like a photograph")


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_control_image_is_pasted_or_dropped_anywhere(page: Page, way: str) -> None:
    encoded = base64.b64encode(PHOTOGRAPH.read_bytes()).decode()
    page.evaluate(
        """([encoded, way]) => {
            const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "photo.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            const event = way === "paste"
                ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
                : new DragEvent("drop", { ...options, dataTransfer: transfer });
            document.body.dispatchEvent(event);
        }""",
        [encoded, way],
    )
    picture = page.get_by_alt_text("Control image")
    expect(picture).to_be_visible()
    expect(page.locator(".image-about")).to_have_text("photo.png · 792 kB · 512 × 512")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 512
    assert "/v1/files/" in request_of(page)["image_url"]
    page.get_by_role("tab", name="Form").click()
    page.get_by_role("button", name="Remove the image").click()
    expect(picture).to_be_hidden()


def test_file_that_is_no_picture_is_refused_at_its_field(page: Page) -> None:
    file = {"name": "notes.png", "mimeType": "image/png", "buffer": b"not a picture"}
    page.locator("#field-image_url-file").set_input_files([file])
    expect(page.locator("#field-image_url-fault")).to_contain_text(re.compile("^this is no picture"))
    expect(page.locator("#announcer")).to_contain_text("this is no picture")
    assert request_of(page)["image_url"] == ""


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_that_can_be_pressed_moves_when_the_control_image_comes(
    new_page: NewPage, url: str, viewport: dict[str, int]
) -> None:
    page = new_page(url, viewport=viewport)
    wait_until_ready(page)
    edges = page.locator("label", has_text="Edges")
    before = edges.bounding_box()
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    expect(page.get_by_text("looks like a photograph")).to_be_visible()
    expect(page.locator(".image-about")).to_contain_text("512 × 512")
    assert edges.bounding_box() == before


def test_control_map_of_before_is_not_shown_for_the_next(page: Page) -> None:
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    shown = page.get_by_alt_text("Control map: what the model will see")
    expect(shown).to_be_visible()
    release_files = hold(page, "**/v1/files/**")
    with page.expect_request("**/v1/files/**"):
        page.get_by_role("radio", name="Landscape 4:3").check()
    release_maps = hold(page, "**/v1/preprocess")
    page.get_by_role("radio", name="Edges").check()
    release_files()
    shown.evaluate("image => image.decode().then(() => new Promise(requestAnimationFrame))")
    expect(page.locator(".well.map")).to_have_text("Making the control map…")
    expect(shown).to_be_hidden()
    release_maps()
    expect(shown).to_be_visible()


def test_control_map_is_shown_before_the_run(page: Page) -> None:
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    page.get_by_role("radio", name="Edges").check()
    shown = page.get_by_alt_text("Control map: what the model will see")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [512, 512]
    canny = shown.get_attribute("src")
    page.get_by_role("radio", name="Landscape 4:3").check()
    expect(shown).not_to_have_attribute("src", canny or "")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [1024, 768]


def test_map_that_the_server_cannot_make_says_so_before_the_run(page: Page) -> None:
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    page.get_by_alt_text("Control image").wait_for()
    page.get_by_label("Prompt", exact=True).fill("a fox")
    notice = page.locator(".notice")
    for name in ("Depth", "Pose"):
        page.get_by_role("radio", name=name).check()
        expect(notice).to_contain_text(f"{name} needs a detector that this server does not have yet.")
        expect(notice.locator("code")).to_have_text(re.compile(f"{zturbo()} pull detectors$"))
        expect(notice).to_contain_text("(1.1 GB)")
        expect(page.locator(".well.map")).to_have_text("This server cannot make that map yet")
    run_button(page).click()
    fault = page.locator("zt-preprocess .fault")
    expect(fault).to_contain_text("this server cannot make pose maps yet")
    page.get_by_role("radio", name="Edges").check()
    expect(notice).to_be_hidden()
    expect(fault).to_be_hidden()


def test_run_waits_for_the_image_that_is_on_its_way(page: Page) -> None:
    edit(page, prompt="a fox", image_size="square", num_inference_steps=1)
    release = hold(page, "**/v1/files")
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    run_button(page).click()
    expect(run_button(page)).to_be_disabled()
    release()
    stage_is(page, "done")
    assert "image_url" in last(page)["input"]


def test_image_that_was_chosen_last_is_taken_whichever_arrives_first(page: Page) -> None:
    first: list[Route] = []
    page.route("**/v1/files", lambda route: first.append(route), times=1)
    chosen = page.locator("#field-image_url-file")
    with page.expect_request("**/v1/files"):
        chosen.set_input_files(PHOTOGRAPH)
    small = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(small, "PNG")
    chosen.set_input_files([{"name": "last.png", "mimeType": "image/png", "buffer": small.getvalue()}])
    about = page.locator(".image-about")
    expect(about).to_contain_text("last.png")
    with page.expect_response("**/v1/files") as late:
        first[0].continue_()
    late.value.finished()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(about).to_contain_text("last.png")
