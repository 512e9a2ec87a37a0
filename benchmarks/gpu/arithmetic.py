"""Floating-point operations of a denoising step, a multiplication with its addition as two."""

from typing import Any

from models.inference.control.controlnet import Layout

TOKENS_STEP = 32


def padded(tokens: int) -> int:
    return -(-tokens // TOKENS_STEP) * TOKENS_STEP


def step_flops(config: Any, image_tokens: int, caption_tokens: int, control: Layout | None) -> float:
    """Of one step on one picture, with a control branch or none. Linear layers and attention alone."""
    width: int = config["dim"]
    inner = int(width / 3 * 8)
    image = padded(image_tokens)
    whole = image + padded(caption_tokens)

    def block(tokens: int) -> float:
        return 2 * tokens * (4 * width**2 + 3 * width * inner) + 4 * tokens**2 * width

    def projection(tokens: int) -> float:
        return 2 * tokens * width**2

    layers: int = config["n_layers"]
    refiners: int = config["n_refiner_layers"]
    total = layers * block(whole) + refiners * block(image)
    if control is None:
        return total
    total += len(control.places) * (block(whole) + projection(whole)) + projection(whole)
    total += refiners * block(image)
    if control.refiner is not None:
        total += refiners * projection(image) + projection(image)
    return total
