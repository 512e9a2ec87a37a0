"""The size at which a request's picture is drawn: the one that it asks for or, by the demo model, its own."""

from models.config import ModelSettings
from models.sizes import output_size
from models.weights import demo
from models.weights.resolve import DEMO, model_choice


def drawn_size(image_size: str, image_wh: tuple[int, int], settings: ModelSettings) -> tuple[int, int]:
    """Width and height in pixels, multiples of 16; the demo model's in the aspect ratio that is asked for.

    `image_wh` is the input image's size, for `auto`. Raises SizeError.
    """
    size = output_size(image_size, image_wh)
    if model_choice(settings) != DEMO:
        return size
    return demo.native_size(*(image_wh if image_size == "auto" else size))


def size_warning(width: int, height: int, settings: ModelSettings) -> str | None:
    """Where pictures are not of the size that is asked for: what a result says of one."""
    if model_choice(settings) != DEMO:
        return None
    return f"The demo model draws at a small size of its own: {width}x{height} this time."
