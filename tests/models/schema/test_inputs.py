from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.schema.inputs import ControlNetLoraInput, PreprocessInput, read_input

DOCUMENTED = {
    "prompt": "A lighthouse on a cliff",
    "image_url": "https://example.com/photo.jpg",
    "loras": [{"path": "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union", "scale": 1}],
}


def read(**changes: Any) -> ControlNetLoraInput:
    return read_input(ControlNetLoraInput, DOCUMENTED | changes)[0]


def faults(body: object) -> dict[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        read_input(ControlNetLoraInput, body)
    return {fault["loc"]: fault["msg"] for fault in caught.value.errors()}


def test_documented_example_gets_the_published_defaults() -> None:
    given_input, warnings = read_input(ControlNetLoraInput, DOCUMENTED)
    assert warnings == []
    assert given_input.model_dump() == {
        "prompt": "A lighthouse on a cliff",
        "image_url": "https://example.com/photo.jpg",
        "loras": [{"path": "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union", "scale": 1.0}],
        "image_size": "auto",
        "control_scale": 0.9,
        "control_start": 0.0,
        "control_end": 0.4,
        "preprocess": "none",
        "num_inference_steps": 8,
        "seed": 0,
        "num_images": 1,
        "enable_prompt_expansion": False,
        "output_format": "png",
    }


def test_schema_names_and_explains_every_field() -> None:
    schema = ControlNetLoraInput.model_json_schema()
    assert schema["required"] == ["prompt", "image_url", "loras"]
    for field in [*schema["properties"].values(), *schema["$defs"]["LoraInput"]["properties"].values()]:
        assert field["title"]
        assert field["description"]
    assert schema["properties"]["num_inference_steps"]["maximum"] == 8
    assert schema["properties"]["loras"]["maxItems"] == 3


def test_every_fault_is_listed_at_once() -> None:
    found = faults(
        {
            "prompt": "",
            "image_url": "photo.jpg",
            "loras": [{"path": "a/b", "scale": 5}, {"scale": 1}],
            "image_size": "huge",
            "control_scale": 1.5,
            "control_start": -1,
            "control_end": "0.4",
            "preprocess": "blur",
            "num_inference_steps": 9,
            "seed": 1.5,
            "num_images": 5,
            "seed_variance": 1.1,
            "enable_prompt_expansion": 1,
            "output_format": "gif",
        }
    )
    assert set(found) == {
        ("prompt",),
        ("image_url",),
        ("loras", 0, "scale"),
        ("loras", 1, "path"),
        ("image_size",),
        ("control_scale",),
        ("control_start",),
        ("control_end",),
        ("preprocess",),
        ("num_inference_steps",),
        ("seed",),
        ("num_images",),
        ("seed_variance",),
        ("enable_prompt_expansion",),
        ("output_format",),
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", True),
        ("seed", "7"),
        ("seed", float("inf")),
        ("num_inference_steps", 7.5),
        ("num_inference_steps", 9.0),
        ("control_scale", False),
        ("control_scale", float("nan")),
        ("control_scale", "0.5"),
        ("seed_variance", -0.1),
        ("seed_variance", True),
        ("enable_prompt_expansion", "true"),
        ("prompt", 5),
        ("prompt", "a\0b"),
        ("prompt", "\ud800"),
        ("prompt", "x" * 20_001),
        ("loras", None),
        ("loras", {}),
        ("loras", [{"path": "a/b"}] * 4),
    ],
)
def test_nothing_is_coerced(field: str, value: object) -> None:
    assert [loc[0] for loc in faults(DOCUMENTED | {field: value})] == [field]


def test_a_json_integer_is_a_number() -> None:
    assert read(control_scale=1, control_end=1, loras=[{"path": "x", "scale": 2}]).control_scale == 1.0


def test_a_whole_float_is_an_integer() -> None:
    taken = read(num_inference_steps=7.0, seed=8.0, num_images=2.0)
    assert (taken.num_inference_steps, taken.seed, taken.num_images) == (7, 8, 2)
    assert {type(taken.num_inference_steps), type(taken.seed), type(taken.num_images)} == {int}


def test_null_in_an_optional_field_is_its_default() -> None:
    optional = [name for name, field in ControlNetLoraInput.model_fields.items() if not field.is_required()]
    assert len(optional) == 11
    given_input, warnings = read_input(ControlNetLoraInput, DOCUMENTED | dict.fromkeys(optional))
    assert (given_input, warnings) == read_input(ControlNetLoraInput, DOCUMENTED)
    assert read(loras=[{"path": "x", "scale": None}]).loras[0].scale == 1.0
    assert list(faults(DOCUMENTED | {"prompt": None})) == [("prompt",)]


@pytest.mark.parametrize(
    ("seed", "taken"),
    [
        *(
            (0, 0),
            (2**63 - 1, 2**63 - 1),
            (2**63, 0),
            (2**63 + 5, 5),
            (2**64 - 1, 2**63 - 1),
            (10**400, None),
        ),
        *((float(2**64), 0), (-1, -1), (-2, -1), (-(2**70), -1)),
    ],
)
def test_any_integer_is_a_seed(seed: float, taken: int | None) -> None:
    given_input, warnings = read_input(ControlNetLoraInput, DOCUMENTED | {"seed": seed})
    assert given_input.seed == (int(seed) % 2**63 if taken is None else taken)
    told = [f"seed: from 2**63 on it is taken modulo 2**63, here as {given_input.seed}."]
    assert warnings == (told if seed >= 2**63 else [])


def test_seed_of_an_endpoint_without_one_is_an_unknown_field() -> None:
    body = {"image_url": "https://example.com/x.png", "seed": 2**70}
    assert read_input(PreprocessInput, body)[1] == ["Unknown field 'seed' was ignored."]


def test_loras_is_required_and_may_be_empty() -> None:
    assert read(loras=[]).loras == []
    assert faults({"prompt": "x", "image_url": "https://h/x"}) == {("loras",): "Field required"}


def test_control_window_must_not_run_backwards_also_against_the_default_end() -> None:
    message = "control_start (0.5) must not be greater than control_end (0.4)"
    assert faults(DOCUMENTED | {"control_start": 0.5}) == {("control_end",): message}
    assert read(control_start=0.5, control_end=0.5).control_end == 0.5


@pytest.mark.parametrize(
    "image_url",
    [
        "https://example.com/a.png?x=1#y",
        "HTTP://127.0.0.1:8000/v1/files/abc/a.png",
        "http://[::1]/x",
        "data:image/png;base64,AAAA",
        "DATA:image/png;base64,AAAA",
        "/v1/files/abc/photo.png",
    ],
)
def test_image_urls_that_are_taken(image_url: str) -> None:
    assert read(image_url=image_url).image_url == image_url


@pytest.mark.parametrize(
    "image_url",
    [
        "",
        "photo.jpg",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "gopher://x",
        "https://",
        "https://:80/",
        "http://[",
        "http://exa mple.com/",
        "http://a\\@b/",
        "http://h/\n",
        " https://h/",
        "https://h/" + "x" * 8_192,
        "javascript:alert(1)",
    ],
)
def test_image_urls_that_are_refused(image_url: str) -> None:
    assert list(faults(DOCUMENTED | {"image_url": image_url})) == [("image_url",)]


def test_unknown_fields_are_ignored_and_named() -> None:
    body = DOCUMENTED | {"guidance": 1, "loras": [{"path": "x", "weight": 1}], "\ud800": 0}
    given_input, warnings = read_input(ControlNetLoraInput, body)
    assert "guidance" not in given_input.model_dump()
    assert warnings == [
        "Unknown field 'loras[0].weight' was ignored.",
        "Unknown field 'guidance' was ignored.",
        "Unknown field '\\ud800' was ignored.",
    ]


def test_a_flood_of_unknown_fields_is_counted_not_listed() -> None:
    _, warnings = read_input(ControlNetLoraInput, DOCUMENTED | {f"x{i}" * 100: i for i in range(1000)})
    assert len(warnings) == 21
    assert warnings[-1] == "980 more unknown fields were ignored."
    assert all(len(warning) < 200 for warning in warnings)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(json_values | st.dictionaries(st.sampled_from(sorted(ControlNetLoraInput.model_fields)), json_values))
def test_no_body_breaks_the_reader(body: object) -> None:
    try:
        _, warnings = read_input(ControlNetLoraInput, body)
    except ValidationError:
        return
    "".join(warnings).encode()
