"""Each LoRA format against two judges: the merge by hand, and diffusers' own loader with peft."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import ZImagePipeline

from models.inference.lora.stack import LoraStack
from tests.models.inference.lora.lora_files import merged, run, tiny_transformer, write
from tests.models.inference.lora.lora_formats import FORMATS

TAKEN_BY_DIFFUSERS = (
    # The formats of which diffusers 0.42.1 loads the whole file.
    "peft",
    "peft-bare",
    "peft-default",
    "peft-bias",
    "peft-uneven-ranks",
    "peft-metadata",
    "peft-rslora",
    "peft-patterns",
    "kohya",
    "kohya-no-alpha",
    "comfyui",
    "comfyui-alpha",
    "lokr-whole",
    "lokr-split-second",
)
TABLE = Path(__file__).parents[4] / "docs" / "loras.md"


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=lambda dtype: str(dtype)[6:]
)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_what_the_dense_change_gives(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    format_ = FORMATS[name]()
    tensors = {key: value.to(dtype) for key, value in format_.tensors.items()}
    lora = write(tmp_path / "lora.safetensors", tensors, format_.metadata, scale=0.8)
    transformer = tiny_transformer()
    plain = run(transformer)

    applied = LoraStack(transformer).apply([lora])

    expected = merged(tiny_transformer(), format_.dense, scale=0.8)
    assert (expected - plain).abs().max() > 1e-2, "the change must be one that is seen"
    torch.testing.assert_close(run(transformer), expected, atol=1e-4, rtol=1e-4)
    assert applied[0].format == format_.label
    assert applied[0].unmatched == format_.redundant
    assert applied[0].matched == len(tensors) - format_.redundant


@pytest.mark.parametrize("name", TAKEN_BY_DIFFUSERS)
def test_diffusers_with_peft_gives_the_same(name: str, tmp_path: Path) -> None:
    format_ = FORMATS[name]()
    lora = write(tmp_path / "lora.safetensors", format_.tensors, format_.metadata)
    theirs, ours = tiny_transformer(), tiny_transformer()
    state, metadata = ZImagePipeline.lora_state_dict(str(lora.path), return_lora_metadata=True)
    ZImagePipeline.load_lora_into_transformer(state, theirs, metadata=metadata)
    LoraStack(ours).apply([lora])
    torch.testing.assert_close(run(ours), run(theirs), atol=1e-4, rtol=1e-4)


def test_the_guide_names_every_format_and_says_which_diffusers_takes() -> None:
    rows = re.findall(r"\| `([\w-]+)` \| (●?) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in rows] == list(FORMATS)
    assert [name for name, mark in rows if mark] == list(TAKEN_BY_DIFFUSERS)


def test_the_guide_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", TABLE.read_text(encoding="utf-8")))
    assert named == {
        test_every_format_gives_what_the_dense_change_gives.__name__,
        test_diffusers_with_peft_gives_the_same.__name__,
    }
