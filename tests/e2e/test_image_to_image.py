"""Image to image and inpainting by the demo model, told by what is in the pictures.

The photograph is of the demo's own size, so that nothing is scaled on the way.
"""

import io
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.schema.model_ids import IMAGE_TO_IMAGE_LORA, INPAINTING_LORA
from models.weights import demo
from models.weights.published import CONTROLNET_2_1
from tests.e2e.conftest import REQUEST_SECONDS, data_uri, photograph

SIDE, _ = demo.native_size(512, 512)
PHOTOGRAPH = photograph("astronaut").resize((SIDE, SIDE))
PIXELS = np.asarray(PHOTOGRAPH).astype(int)
HOLE = (slice(SIDE // 4 - 1, SIDE * 3 // 4), slice(SIDE // 3, SIDE * 4 // 5))
"""Rows and columns, off the grid of the latents."""


def as_mask(rows: slice, columns: slice) -> NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[rows, columns] = True
    return mask


def made(url: str, model_id: str, **fields: Any) -> tuple[dict[str, Any], NDArray[np.int_]]:
    """The result, and the pixels of its picture."""
    body = {"prompt": "a red ball on a green table", "image_url": data_uri(PHOTOGRAPH)} | fields
    held = f"{url}/v1/models/{model_id}?wait={REQUEST_SECONDS:g}"
    result: dict[str, Any] = httpx.post(held, json=body, timeout=REQUEST_SECONDS).json()
    assert result["status"] == "succeeded", result
    picture = Image.open(io.BytesIO(httpx.get(result["output"]["image"]).content)).convert("RGB")
    return result, np.asarray(picture).astype(int)


def test_strength_orders_the_distance_from_the_image(url: str) -> None:
    distances = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        result, pixels = made(url, IMAGE_TO_IMAGE_LORA, strength=strength)
        assert result["strength"] == strength
        distances.append(np.abs(pixels - PIXELS).mean())
    assert distances[0] == 0, "at 0 it comes back as it was"
    assert distances == sorted(distances)
    assert np.diff(distances).min() > 1


def test_outside_the_mask_every_pixel_is_that_of_the_image(url: str) -> None:
    mask = as_mask(*HOLE)
    sent = data_uri(Image.fromarray(mask))
    for loras in ([], [{"path": "style.safetensors"}], [{"path": CONTROLNET_2_1}]):
        result, pixels = made(url, INPAINTING_LORA, mask_image_url=sent, loras=loras)
        np.testing.assert_array_equal(pixels[~mask], PIXELS[~mask])
        assert np.abs(pixels - PIXELS)[mask].mean() > 10
        told = any("knows no masks" in warning for warning in result["warnings"])
        assert (result.get("controlnet"), told) == (
            (CONTROLNET_2_1, False) if loras == [{"path": CONTROLNET_2_1}] else (None, True)
        )


def test_lora_styles_what_the_mask_lets_it(url: str) -> None:
    sent = data_uri(Image.fromarray(as_mask(*HOLE)))
    plain, styled = (
        made(url, INPAINTING_LORA, mask_image_url=sent, loras=loras)[1]
        for loras in ([], [{"path": "style.safetensors", "scale": 2}])
    )
    assert np.abs(plain - styled)[HOLE].mean() > 1


def test_picture_of_a_picture_says_what_it_was_made_from(url: str) -> None:
    """By digests, for a picture is passed on."""
    mask = data_uri(Image.fromarray(as_mask(*HOLE)))
    result, _ = made(url, INPAINTING_LORA, mask_image_url=mask, strength=0.5, num_images=1)
    text = Image.open(io.BytesIO(httpx.get(result["output"]["image"]).content)).text  # type: ignore[attr-defined]
    assert "Denoising strength: 0.5" in text["parameters"]
    for field in ("image_url", "mask_image_url"):
        assert f'"{field}": "sha256:' in text["zturbo"]


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_same_mask_and_seed_make_the_same_picture(url: str, strength: float) -> None:
    sent = data_uri(Image.fromarray(as_mask(*HOLE)))
    one, again, other = (
        made(url, INPAINTING_LORA, mask_image_url=sent, strength=strength, seed=seed)[1] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other)[HOLE].mean() > 1
