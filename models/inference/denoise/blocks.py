"""The blocks of the transformer and of the control branch: diffusers' weights with a faster forward.

The arithmetic is diffusers' in fewer passes over memory: there is no mask, a norm's weight and its scale or
gate are one factor, hints are not stacked, and a compiler can fuse the rotary product. benchmarks/NOTES.md
says what each gives.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from diffusers.models.controlnets import controlnet_z_image
from diffusers.models.transformers.transformer_z_image import FeedForward, ZImageTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from models.inference.denoise.attention import attend, attends_by_heads
from models.inference.denoise.fp8 import Fp8Linear, multiply_each
from models.inference.denoise.int8 import feed_forward, in_integers, project
from models.inference.denoise.rounding import EightBits, round_matrices

Model = TypeVar("Model", bound=nn.Module)
Swiglu = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function of tokens (batch, tokens, width) and the weights of w1 and w3 (inner, width) that gives
`silu(w1(x)) * w3(x)`, (batch, tokens, inner): `models.inference.denoise.swiglu.swiglu` is one."""


class Pending(NamedTuple):
    """The last sum of a block, left to the next of its stack, whose norm has the same `eps`."""

    fed: Tensor
    """What its feed-forward made, (batch, tokens, dim)."""
    gate: Tensor
    """The last of its factors, (batch or 1, dim)."""


class Block(ZImageTransformerBlock):  # type: ignore[misc]
    """A block of the transformer."""

    hands_on = False
    """True where a block is compiled with the next one's beginning: see `forward`."""
    swiglu: Swiglu | None = None
    """What makes the feed-forward's inner tensor; None: two products, and a kernel of what comes of both."""

    def forward(
        self,
        x: Tensor,
        rope: Tensor,
        factors: Tensor | None = None,
        pending: Pending | None = None,
        *,
        whole: bool = True,
    ) -> Any:
        """Tokens (batch, tokens, dim) to the same; `rope` (1, tokens, 1, head_dim / 2, 2) as cosine and sine.

        `factors` are what `Modulation` has for this block, (4, batch or 1, dim): none for a caption's
        refiner. `pending` is what the block before has yet to add to the tokens. If not `whole`, this one
        leaves it to the next too, and gives its tokens and what its feed-forward made: a compiler then makes
        one kernel of the sum and of the norm that reads it.
        """
        if pending is not None:
            x = torch.addcmul(x, _norm(pending.fed, self.ffn_norm2.eps), pending.gate[:, None])
            # A view of what is in memory: a compiler would make the sum again for each norm that reads it.
            x = x.as_strided(x.shape, x.stride())
        x, fed, gate = _forward(self, x, rope, factors)
        return torch.addcmul(x, _norm(fed, self.ffn_norm2.eps), gate) if whole else (x, fed)


class ControlBlock(controlnet_z_image.ZImageControlTransformerBlock):  # type: ignore[misc]
    """A block of the control branch."""

    swiglu: Swiglu | None = None

    def forward(self, branch: Tensor, x: Tensor, rope: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """A hint for the transformer, and the tokens for the next control block; the first one reads `x`."""
        # Not `block_id`, which is another number in each: compiled code would serve one block alone.
        if hasattr(self, "before_proj"):
            branch = self.before_proj(branch) + x
        branch, fed, gate = _forward(self, branch, rope, factors)
        branch = torch.addcmul(branch, _norm(fed, self.ffn_norm2.eps), gate)
        return self.after_proj(branch), branch


OWN: dict[type, type[nn.Module]] = {
    ZImageTransformerBlock: Block,
    # The refiner of Union 1.0 and its feed-forward, of which that module has copies: one code serves both.
    controlnet_z_image.ZImageTransformerBlock: Block,
    controlnet_z_image.FeedForward: FeedForward,
    controlnet_z_image.ZImageControlTransformerBlock: ControlBlock,
}


def use_own_blocks(model: Model) -> Model:
    """Have every block of a diffusers model run the forward here; weights, names and hooks stay."""
    for module in model.modules():
        if type(module) in OWN:
            module.__class__ = OWN[type(module)]
    return model


def blocks_of(transformer: Any) -> list[nn.Module]:
    """All blocks of a transformer, in the order in which they run."""
    return [*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers]


def round_blocks(model: Model, eight_bits: EightBits) -> Model:
    """Put the matrices of every block's attention and feed-forward in 8 bits: 97 % of the weights."""
    for block in model.modules():
        if isinstance(block, Block | ControlBlock):
            round_matrices(block.attention, eight_bits)
            round_matrices(block.feed_forward, eight_bits)
    return model


def _forward(
    block: Block | ControlBlock, x: Tensor, rope: Tensor, factors: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a block up to its last sum: give the tokens, what the feed-forward made of them, and its factor."""
    norms = (block.attention_norm1, block.attention_norm2, block.ffn_norm1, block.ffn_norm2)
    if factors is None:
        before, after, before_feed, after_feed = (norm.weight for norm in norms)
    else:
        before, after, before_feed, after_feed = factors[:, :, None].unbind()
    attended = _attend(block.attention, _norm(x, norms[0].eps) * before, rope)
    x = torch.addcmul(x, _norm(attended, norms[1].eps), after)
    fed = _feed(block.feed_forward, _norm(x, norms[2].eps) * before_feed, block.swiglu)
    return x, fed, after_feed


def _norm(x: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=eps)


def _attend(attention: Any, x: Tensor, rope: Tensor) -> Tensor:
    query, key, value = (
        heads.view(*heads.shape[:-1], attention.heads, -1)
        for heads in _project(x, attention.to_q, attention.to_k, attention.to_v)
    )
    # By one kernel each, and rounded once; diffusers' own norm is eight passes and rounds twice.
    query, key = (
        _rotate(F.rms_norm(heads, norm.weight.shape, norm.weight, norm.eps), rope)
        .to(value.dtype)
        .transpose(1, 2)
        for norm, heads in ((attention.norm_q, query), (attention.norm_k, key))
    )
    rounds = in_integers(attention.to_q, x)
    if attends_by_heads(x, in_integers=rounds):
        mixed = attend(query, key, value.transpose(1, 2), in_integers=rounds)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value.transpose(1, 2)).transpose(1, 2).flatten(2)
    output: Tensor = attention.to_out[0](mixed)
    return output


def _feed(feed: Any, x: Tensor, swiglu: Swiglu | None) -> Tensor:
    if in_integers(feed.w1, x):
        return feed_forward(feed.w1, feed.w2, feed.w3, x)
    compiling = torch.compiler.is_compiling()
    if compiling and swiglu and type(feed.w1) is type(feed.w3) is nn.Linear:
        inner = swiglu(x, feed.w1.weight, feed.w3.weight)
    elif compiling or isinstance(feed.w1, Fp8Linear):
        # One kernel of two: what is in place would have to be there before the other product.
        gate, inner = _project(x, feed.w1, feed.w3)
        inner = F.silu(gate) * inner
    else:
        # In place: these are a block's largest tensors, and fresh memory costs as much as the arithmetic.
        inner = F.silu(feed.w1(x), inplace=True).mul_(feed.w3(x))
    output: Tensor = feed.w2(inner)
    return output


def _project(x: Tensor, *layers: Any) -> list[Tensor]:
    """What several layers make of the same tokens (…, in)."""
    if all(isinstance(layer, Fp8Linear) for layer in layers):
        return multiply_each(x, *layers)
    return project(x, *layers)


def _rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn neighbouring pairs of (batch, tokens, heads, head_dim), in float32.

    Compiled, the first of all pairs come out before the second of all: in query and key alike, so that their
    products are the same.
    """
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    if torch.compiler.is_compiling():
        # In reals, which a compiler fuses with what is around; run one by one they are six passes, not one.
        (first, second), (cosine, sine) = pairs.unbind(-1), rope.unbind(-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rope)).flatten(-2)
