"""Every field of the input does something: two requests that differ in it alone differ in picture or work.

The README's table of fields names these tests.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

from models.weights import demo
from tests.e2e.conftest import CONTROLNET, Made, Make, data_uri, photograph
from worker.encoding.metadata import read_metadata

CANNY = {"preprocess": "canny", "control_scale": 1.0, "control_end": 1.0}


def differ(one: Made, other: Made) -> bool:
    return not np.array_equal(one.pixels, other.pixels)


def lora(scale: float) -> list[dict[str, Any]]:
    return [{"path": "style.safetensors", "scale": scale}]


def test_prompt_changes_the_picture(make: Make) -> None:
    assert differ(make(), make(prompt="a black cat sleeping by an open window"))


def test_image_url_changes_the_picture(make: Make) -> None:
    assert differ(make(), make(image_url=data_uri(photograph("chelsea").resize((512, 512)))))


def test_lora_changes_the_picture(make: Make) -> None:
    styled = make(loras=lora(1))
    assert differ(make(), styled)
    (applied,) = styled.result["loras"]
    assert (applied["name"], applied["unmatched"]) == ("style.safetensors", 0)
    assert applied["matched"] > 0


def test_lora_scale_changes_the_picture(make: Make) -> None:
    assert differ(make(loras=lora(1)), make(loras=lora(0.4)))


def test_picture_without_a_lora_is_the_same_after_one_with_it(make: Make) -> None:
    before = make()
    make(loras=lora(2))
    assert not differ(before, make(seed=0))


def test_controlnet_among_loras_scales_the_control(make: Make) -> None:
    whole, half = (make(loras=[{"path": CONTROLNET, "scale": scale}]) for scale in (1, 0.5))
    assert whole.result["controlnet"] == CONTROLNET
    assert differ(whole, half)
    assert not differ(half, make(control_scale=0.45))


def test_image_size_sets_the_size(make: Make) -> None:
    """In the aspect ratio that is asked for, at the demo model's own size, and the result says so."""
    assert make().image.size == demo.native_size(512, 512)
    tall = make(image_size="portrait_16_9")
    assert tall.image.size == demo.native_size(576, 1024)
    assert any("x".join(map(str, tall.image.size)) in warning for warning in tall.result["warnings"])


def test_image_size_auto_keeps_the_shape_of_the_image(make: Make) -> None:
    wide = photograph("chelsea").resize((640, 480))
    assert make(image_size="auto", image_url=data_uri(wide)).image.size == demo.native_size(640, 480)


def test_control_scale_changes_the_picture(make: Make) -> None:
    assert differ(make(control_scale=1.0), make(control_scale=0.2))


def test_control_start_changes_the_picture(make: Make) -> None:
    assert differ(make(control_end=1.0), make(control_end=1.0, control_start=0.5))


def test_control_end_changes_the_picture(make: Make) -> None:
    assert differ(make(control_end=0.4), make(control_end=1.0))


def test_no_control_window_means_no_control(make: Make) -> None:
    free = make(control_start=0.5, control_end=0.5)
    assert free.result.get("controlnet") is None
    assert not differ(free, make(control_scale=0.0))


def test_preprocess_changes_the_picture(make: Make) -> None:
    assert differ(make(control_end=1.0, control_scale=1.0), make(**CANNY))


def test_num_inference_steps_is_the_number_of_steps(make: Make) -> None:
    for steps in (4, 8):
        made = make(num_inference_steps=steps)
        assert made.statuses[-1]["total_steps"] == steps
        assert made.statuses[-1]["step"] == steps
    assert differ(make(num_inference_steps=4), make(num_inference_steps=8))


def test_seed_changes_the_picture(make: Make) -> None:
    assert differ(make(seed=0), make(seed=1))


def test_same_request_gives_the_same_picture(make: Make) -> None:
    assert not differ(make(seed=0), make())


def test_seed_of_minus_one_is_drawn_and_told(make: Make) -> None:
    drawn = make(seed=-1)
    assert drawn.result["seed"] >= 0
    assert not differ(drawn, make(seed=drawn.result["seed"]))


def test_num_images_makes_the_pictures_of_the_next_seeds(make: Make) -> None:
    both = make(num_images=2)
    assert both.result["seeds"] == [0, 1]
    for file, seed in zip(both.files, (0, 1), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        np.testing.assert_allclose(pixels.astype(int), make(seed=seed).pixels, atol=1)


def test_seed_variance_changes_the_picture(make: Make) -> None:
    plain, varied = make(), make(seed_variance=0.5)
    assert differ(plain, varied)
    assert not differ(plain, make(seed_variance=0))
    assert read_metadata(varied.files[0])["zturbo"]["seed_variance"] == 0.5


def test_enable_prompt_expansion_changes_the_work(make: Make) -> None:
    """The demo model expands to nonsense, or to nothing and says so; either way it was asked."""
    plain, expanded = make(), make(enable_prompt_expansion=True)
    assert not plain.result.get("expanded_prompt")
    assert expanded.result.get("expanded_prompt") or expanded.result.get("warnings")


def test_output_format_is_the_format_of_the_file(make: Make) -> None:
    for output_format, kind in {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}.items():
        made = make(output_format=output_format)
        assert (made.image.format, made.content_type) == (kind, f"image/{output_format}")
