"""float16 without overflow, for cards that have no bfloat16.

The feed-forward's products and the attention's output pass 65,504, the largest number of float16. Behind
each stands an RMSNorm, which takes a constant factor of its input out again: with smaller weights before it,
and its eps smaller by the square, the function is the same. In a Qwen3 it is the sum of all layers that
grows too large, which nothing but norms ever reads.

`shrink` and `shrink_stream` prepare a model for such weights; `models.inference.loading.shrunk` makes them.
"""

from typing import Any, TypeVar

from torch import nn

from models.inference.denoise.blocks import Block, ControlBlock

Model = TypeVar("Model", bound=nn.Module)

FACTOR = 2.0**-6
"""The factor by which the weights of `w3`, `w2` and `to_out` are made smaller, each.

What `w2` gives becomes smaller by 2**-12: values up to 1.6e7 were seen there, and up to 6.6e5 behind `w3`.
The whole factor in one place would make weights too small for float16."""


STREAM = 2.0**-6
"""The factor by which what a text encoder's layers add up is made smaller: values up to 4.2e6 fit then.

A smaller one would make rows of its table of words, whose values are about 0.02, too small for float16."""


def shrink(model: Model) -> Model:
    """Have every block take smaller products: `factor_of` a layer is what its weights are multiplied by."""
    for block in model.modules():
        if not isinstance(block, Block | ControlBlock):
            continue
        for layer in (block.feed_forward.w3, block.feed_forward.w2, block.attention.to_out[0]):
            layer.factor = FACTOR
        block.ffn_norm2.eps *= FACTOR**4
        block.attention_norm2.eps *= FACTOR**2
    embedder: Any = getattr(model, "cap_embedder", None)
    if embedder is not None:
        # The text encoder's answer comes as `shrink_stream` leaves it.
        embedder[0].eps *= STREAM**2
    return model


def shrink_stream(text_encoder: Any) -> Any:
    """The same for a Qwen3 whose hidden states, all of them, are smaller by STREAM; its logits stay."""
    model = text_encoder.model
    # The table itself is the language model head as well.
    model.embed_tokens.register_forward_hook(lambda _, __, words: words * STREAM)
    for layer in model.layers:
        layer.self_attn.o_proj.factor = STREAM
        # The product of both is what becomes large.
        layer.mlp.up_proj.factor = layer.mlp.down_proj.factor = STREAM**0.5
        layer.input_layernorm.variance_epsilon *= STREAM**2
        layer.post_attention_layernorm.variance_epsilon *= STREAM**2
    model.norm.variance_epsilon *= STREAM**2
    return text_encoder


def factor_of(layer: nn.Module) -> float:
    """What the weights of a layer are multiplied by."""
    return getattr(layer, "factor", 1.0)
