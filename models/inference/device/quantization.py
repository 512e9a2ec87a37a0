"""The blocks' matrices in 8 bits, by torchao: the transformer and the control branches take half the memory.

Each row has one scale; products are taken in the type of everything else. A LoRA's change to a weight is
mostly smaller than a step of 8 bits, and would be lost if it were added to the rounded weight: it is merged
into the weight as it was, and rounded with it. Not yet tried on a GPU.
"""

from importlib.util import find_spec
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from models.errors import ModelError
from models.inference.denoise.blocks import Block, ControlBlock

Model = TypeVar("Model", bound=nn.Module)


def require_torchao() -> None:
    """Raise `ModelError` where torchao is not installed."""
    if find_spec("torchao") is None:
        raise ModelError("ZTURBO_QUANTIZATION=int8 takes one more package: pip install 'zturbo[int8]'.")


def quantize_blocks(model: Model) -> Model:
    """Store the blocks' matrices in 8 bits on the device where they are; returns the model."""
    for block in model.modules():
        if isinstance(block, Block | ControlBlock):
            for part in (block.attention, block.feed_forward):
                for layer in part.modules():
                    if isinstance(layer, nn.Linear):
                        layer.weight = nn.Parameter(_packed(layer.weight), requires_grad=False)
    return model


def is_quantized(weight: Tensor) -> bool:
    return is_traceable_wrapper_subclass(weight)


def tensors_of(weight: Tensor) -> list[Tensor]:
    """The tensors that a weight is stored in: itself, or its 8-bit numbers, scales and zero points."""
    if not is_quantized(weight):
        return [weight]
    names, _ = weight.__tensor_flatten__()  # type: ignore[attr-defined]
    return [getattr(weight, name) for name in names]


def store(weight: Tensor, value: Tensor) -> None:
    """Write a value into a weight, rounded as the weight is stored; its addresses stay."""
    weight.copy_(_packed(value.to(weight.device, weight.dtype)) if is_quantized(weight) else value)


def _packed(weight: Tensor) -> Any:
    from torchao.quantization import Int8Tensor, PerRow

    return Int8Tensor.from_hp(weight.detach(), PerRow())
