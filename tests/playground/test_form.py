"""The form, the JSON view and what is drawn of them."""

from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.playground.conftest import (
    PHONE,
    PHOTOGRAPH,
    NewPage,
    advanced,
    edit,
    request_of,
    run_button,
    wait_until_ready,
)


def show_form(page: Page) -> None:
    page.get_by_role("tab", name="Form").click()


def test_every_field_of_the_schema_has_a_control(page: Page, new_page: NewPage, url: str) -> None:
    model = page.request.get(f"{url}/v1/models").json()["models"][0]
    fields = set(model["input_schema"]["properties"])
    tags = page.locator(
        ".form zt-slider, .form zt-choice, .form zt-preprocess, .form zt-size, .form zt-seed, .form zt-loras"
    )
    shown = set(tags.evaluate_all("elements => elements.map((element) => element.field.name)"))
    by_id = {name for name in fields if page.locator(f"#field-{name}").count()}
    assert shown | by_id == fields


def test_json_and_form_are_the_same_request(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("a fox")
    for folded in ("field-control_start", "field-num_inference_steps", "field-output_format-webp"):
        expect(page.locator(f"#{folded}")).to_be_hidden()
    advanced(page)
    page.get_by_role("radio", name="WebP").check()
    page.get_by_role("spinbutton", name="Steps").fill("3")
    page.keyboard.press("Tab")
    page.get_by_role("switch", name="Magic Prompt").check()
    body = request_of(page)
    assert body == body | {
        "prompt": "a fox",
        "output_format": "webp",
        "num_inference_steps": 3,
        "enable_prompt_expansion": True,
        "seed": -1,
        "loras": [],
    }
    edit(page, prompt="a wolf", output_format="jpeg", num_inference_steps=5, control_scale=0.35)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a wolf")
    expect(page.get_by_role("radio", name="JPEG")).to_be_checked()
    expect(page.get_by_role("spinbutton", name="Steps")).to_have_value("5")
    expect(page.get_by_label("Strength of the guide, slider")).to_have_value("0.35")
    expect(page.locator(".window .cell")).to_have_count(5)


def test_broken_json_changes_nothing_and_keeps_run_back(page: Page) -> None:
    edit(page, prompt="a fox")
    page.get_by_role("tab", name="JSON").click()
    page.get_by_label("The request as JSON").fill('{"prompt": ')
    expect(page.locator("#json-fault")).not_to_be_empty()
    run_button(page).click()
    expect(page.locator("zt-runner").get_by_role("alert")).to_contain_text("Invalid JSON")
    show_form(page)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox")


def test_window_lights_the_steps_that_the_server_will_guide(page: Page) -> None:
    edit(page, num_inference_steps=8)
    advanced(page)
    lit = page.locator(".window .cell.lit")
    assert lit.all_inner_texts() == ["1", "2", "3"]
    end = page.get_by_label("Guide up to here")
    end.press("End")
    assert lit.all_inner_texts() == [str(step) for step in range(1, 9)]
    page.get_by_label("Guide from here").fill("0.5")
    assert lit.all_inner_texts() == ["5", "6", "7", "8"]
    expect(page.get_by_text("Steps 5–8 of 8 are guided")).to_be_visible()
    # More steps than there can be stay in their place, until the server refuses them.
    edit(page, num_inference_steps=99)
    assert page.locator(".cells").evaluate("cells => cells.scrollWidth - cells.clientWidth") == 0
    edit(page, num_inference_steps=8)
    # The one handle takes the other along.
    end.fill("0.25")
    assert request_of(page) | {"control_start": 0.25, "control_end": 0.25} == request_of(page)
    show_form(page)
    expect(page.get_by_text("No step is guided")).to_be_visible()


def test_three_loras_and_no_more(page: Page) -> None:
    add = page.get_by_role("button", name="Add a LoRA")
    for number in range(1, 4):
        add.click()
        path = page.get_by_label(f"LoRA {number}, path")
        expect(path).to_be_focused()
        path.fill(f"style-{number}.safetensors")
    expect(add).to_be_disabled()
    expect(page.locator("zt-loras .figure")).to_have_text("3 of 3")
    page.get_by_label("LoRA 2, scale", exact=True).fill("9")
    page.keyboard.press("Tab")
    expect(page.get_by_label("LoRA 2, scale", exact=True)).to_have_value("4")
    page.get_by_role("button", name="Remove LoRA 1").click()
    expect(add).to_be_focused()
    # An empty row is none.
    add.click()
    assert request_of(page)["loras"] == [
        {"path": "style-2.safetensors", "scale": 4},
        {"path": "style-3.safetensors", "scale": 1},
    ]


def test_seed_is_drawn_until_it_is_locked(page: Page) -> None:
    seed = page.get_by_label("Seed", exact=True)
    expect(seed).to_have_value("")
    expect(seed).to_have_attribute("placeholder", "random")
    page.get_by_role("button", name="Random seed").click()
    thrown = seed.input_value()
    assert request_of(page)["seed"] == int(thrown)
    show_form(page)
    lock = page.get_by_role("button", name="Lock the seed")
    expect(lock).to_have_attribute("aria-pressed", "true")
    lock.click()
    expect(seed).to_have_value("")
    assert request_of(page)["seed"] == -1


def test_how_far_several_pictures_differ_is_asked_where_there_are_several(
    page: Page, new_page: NewPage, url: str
) -> None:
    slider, number = (
        page.get_by_label("How far the pictures differ" + end, exact=True) for end in (", slider", "")
    )
    expect(slider).to_be_hidden()
    expect(number).to_be_hidden()
    page.get_by_label("Pictures, slider").press("ArrowRight")
    slider.press("ArrowRight")
    expect(number).to_have_value("0.01")
    number.fill("0.1")
    page.keyboard.press("Tab")
    assert request_of(page) == request_of(page) | {"num_images": 2, "seed_variance": 0.1}
    show_form(page)
    # What is sent is shown; who takes it back by the keyboard keeps it until he goes on.
    page.get_by_label("Pictures, slider").press("Home")
    slider.press("Home")
    expect(number).to_have_value("0")
    expect(slider).to_be_focused()
    page.get_by_label("Pictures, slider").press("Home")
    edit(page, num_images=1)
    expect(slider).to_be_hidden()
    phone = new_page(url, viewport=PHONE, has_touch=True)
    wait_until_ready(phone)
    edit(phone, num_images=4)
    slider = phone.get_by_label("How far the pictures differ, slider")
    slider.tap()
    assert request_of(phone)["seed_variance"] == 0.5
    assert phone.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_sizes_are_drawn_in_their_shape(page: Page) -> None:
    page.get_by_role("radio", name="Landscape 16:9").check()
    expect(page.get_by_text("1024 × 576")).to_be_visible()
    box = page.locator('.shape[data-option="landscape_16_9"]').bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(16 / 9, rel=0.05)


def test_seed_beyond_2_to_the_53_stays_exact(page: Page) -> None:
    text = page.get_by_label("The request as JSON")
    request_of(page)
    text.fill('{"prompt": "a fox", "seed": 9223372036854775807}')
    page.get_by_role("tab", name="Form").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("9223372036854775807")
    page.get_by_label("Seed", exact=True).fill("9007199254740993")
    assert request_of(page)["seed"] == 9007199254740993
    page.reload()
    wait_until_ready(page)
    assert request_of(page)["seed"] == 9007199254740993


def test_draft_outlives_the_tab(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("a fox")
    other = page.context.new_page()
    other.goto(page.url)
    wait_until_ready(other)
    expect(other.get_by_label("Prompt", exact=True)).to_have_value("a fox")


def test_what_two_models_share_stays_when_the_model_changes(page: Page) -> None:
    page.locator("#field-image_url-file").set_input_files(PHOTOGRAPH)
    page.get_by_alt_text("Control image").wait_for()
    edit(page, prompt="a fox", num_inference_steps=3, control_scale=0.5, seed=7)
    before = request_of(page)
    model = page.get_by_label("Model", exact=True)
    expect(model.locator("option")).to_have_text(
        [
            *("With an image and LoRAs", "Text only", "With LoRAs", "With an image"),
            *("An image changed", "An image changed, with LoRAs"),
            *("Part of an image anew", "Part of an image anew, with LoRAs"),
        ]
    )
    model.select_option(label="Text only")
    shared = request_of(page)
    assert shared == shared | {"prompt": "a fox", "num_inference_steps": 3, "seed": 7}
    # A size that only follows an image means nothing here.
    assert shared["image_size"] == "square_hd"
    assert not shared.keys() & {"image_url", "control_scale", "loras"}
    model.select_option(label="With an image and LoRAs")
    assert request_of(page) == before


def test_reset_brings_the_defaults_back(page: Page) -> None:
    before = request_of(page)
    edit(page, prompt="a fox", num_inference_steps=2, seed=4, loras=[{"path": "a"}], stray=1)
    page.get_by_role("button", name="Reset").click()
    assert request_of(page) == before


def test_installed_lora_is_offered_and_described(page: Page) -> None:
    page.get_by_role("button", name="Add a LoRA").click()
    expect(page.locator("datalist option[value='style.safetensors']")).to_have_count(1)
    page.get_by_label("LoRA 1, path").fill("style.safetensors")
    expect(page.locator(".lora-note")).to_have_text("rank 4 · 27 kB")


def test_trigger_words_go_into_the_prompt_by_a_click(new_page: NewPage, url: str) -> None:
    """The server of these tests has no LoRA that names any."""
    page = new_page("about:blank")
    lora = {"path": "ink.safetensors", "size": 40_000_000, "rank": 16, "trigger_words": ["inkwash"]}
    page.route("**/v1/loras", lambda route: route.fulfill(json={"loras": [lora]}))
    page.goto(url)
    wait_until_ready(page)
    edit(page, prompt="a fox", loras=[{"path": "ink.safetensors", "scale": 1}])
    page.get_by_role("button", name="inkwash").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox, inkwash")


def test_expand_now_writes_over_the_prompt_and_is_undone(page: Page) -> None:
    """Against an answer of our own, which the demo model may decline to give."""
    page.route(
        "**/v1/expand", lambda route: route.fulfill(json={"expanded_prompt": "a red fox in deep snow"})
    )
    prompt = page.get_by_label("Prompt", exact=True)
    expand = page.get_by_role("button", name="Expand now")
    expect(expand).to_be_disabled()
    prompt.fill("a fox")
    expand.click()
    expect(prompt).to_have_value("a red fox in deep snow")
    prompt.press("Control+z")
    expect(prompt).to_have_value("a fox")


def test_expand_now_asks_the_server(page: Page) -> None:
    """The demo model's answer may be declined, which the field then says."""
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a red ball")
    page.get_by_role("button", name="Expand now").click()
    told = page.locator("#field-prompt-fault:not([hidden])")
    page.wait_for_function(
        "([input, fault]) => input.value !== 'a red ball' || !fault.hidden",
        arg=[prompt.element_handle(), page.locator("#field-prompt-fault").element_handle()],
    )
    if told.count():
        expect(told).to_contain_text("The prompt was used as it is")


OTHER_SCHEMA: dict[str, Any] = {
    "$defs": {"Style": {"enum": ["photo", "ink"], "type": "string"}},
    "properties": {
        "prompt": {"type": "string", "title": "Prompt"},
        "style": {"$ref": "#/$defs/Style", "default": "ink", "title": "Style"},
        "guidance": {"type": "number", "minimum": 1, "maximum": 20, "default": 4.5, "title": "Guidance"},
        "count": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
        "seed": {"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "Seed"},
        "tile": {"type": "boolean", "default": True, "title": "Tile"},
        "image_size": {
            "anyOf": [{"enum": ["square", "landscape_4_3"], "type": "string"}, {"type": "object"}],
            "default": "square",
            "title": "Image size",
        },
        "extra": {"type": "object", "title": "Extra"},
    },
    "required": ["prompt"],
}


def test_another_model_needs_no_new_page(new_page: NewPage, url: str) -> None:
    """A model with other fields, as a later server would list it beside ours."""

    def answer(route: Route) -> None:
        body = route.fetch().json()
        other = body["models"][0] | {
            "model_id": "some/other",
            "display_name": "Other",
            "input_schema": OTHER_SCHEMA,
        }
        route.fulfill(json={"models": [*body["models"], other], "total": 2})

    page = new_page("about:blank")
    page.route("**/v1/models", answer)
    page.goto(url)
    wait_until_ready(page)
    page.get_by_label("Model", exact=True).select_option("some/other")
    advanced(page)
    expect(page.get_by_role("radio", name="ink")).to_be_checked()
    expect(page.get_by_label("Guidance", exact=True)).to_have_value("4.5")
    expect(page.get_by_role("switch", name="Tile")).to_be_checked()
    page.get_by_label("Prompt", exact=True).fill("a fox")
    page.get_by_label("Extra", exact=True).fill('{"a": 1}')
    page.keyboard.press("Tab")
    assert request_of(page) == {
        "prompt": "a fox",
        "style": "ink",
        "guidance": 4.5,
        "tile": True,
        "image_size": "square",
        "extra": {"a": 1},
    }
