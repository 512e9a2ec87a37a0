"""One denoising step of Z-Image: transformer and control branch together, on diffusers' models and weights.

The reference for the control branch is VideoX-Fun's `ZImageControlTransformer2DModel`, by the authors of
the control checkpoints. diffusers' own pair of models equals it for Union 1.0 only: the hints of 2.x for the
noise refiner never reach the transformer there. Nothing here knows of prompts, schedules or pictures.

The sequence is the image tokens and then the caption tokens, each padded to a multiple of 32 with a learned
token that the model attends to by design. The prompts of a batch are of one length, so nothing is masked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ZImageControlNetModel, ZImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF
from torch import Tensor, nn

from models.inference.denoise.blocks import Pending
from models.inference.denoise.modulation import Modulation, modulate_each


@dataclass(frozen=True)
class Conditioning:
    """What the steps of one request share: nothing here depends on the timestep or the noise."""

    caption: Tensor
    """Refined caption tokens, (1, caption tokens, dim), or (batch, …) where each picture has its own."""
    image_rope: Tensor
    """Rotary table of the image tokens, cosine and sine, (1, image tokens, 1, head_dim / 2, 2)."""
    rope: Tensor
    """Rotary table of the whole sequence, of the same layout."""


@dataclass(frozen=True)
class Control:
    """A control branch, its picture's tokens, and how strongly its hints are added."""

    controlnet: ZImageControlNetModel
    tokens: Tensor
    """Embedded control latents, (1, image tokens, dim)."""
    scale: float


Predict = Callable[..., Tensor]
"""`predict`, or what gives the same of the same arguments."""


def condition(
    transformer: ZImageTransformer2DModel, prompt_embeds: Tensor, height: int, width: int
) -> Conditioning:
    """Prepare a request: `prompt_embeds` (prompt tokens, cap_feat_dim), latents of `height` by `width`.

    Where each picture has embeddings of its own, they are (batch, prompt tokens, cap_feat_dim).
    """
    dtype = transformer.x_pad_token.dtype
    prompt_embeds = prompt_embeds.reshape(-1, *prompt_embeds.shape[-2:])
    caption = transformer.cap_embedder(prompt_embeds.to(dtype))
    caption = _pad(caption, transformer.cap_pad_token)
    caption_rope, image_rope = _rope(transformer, caption.shape[1], height, width, prompt_embeds.device)
    for layer in transformer.context_refiner:
        caption = layer(caption, caption_rope)
    return Conditioning(caption, image_rope, torch.cat([image_rope, caption_rope], dim=1))


def control_tokens(
    transformer: ZImageTransformer2DModel, controlnet: ZImageControlNetModel, control_latents: Tensor
) -> Tensor:
    """Embed control latents (1, channels, height, width); of 33, those for inpainting may be left out."""
    patch, embedder = _patch(transformer)
    missing = controlnet.control_in_dim - control_latents.shape[1]
    latents = nn.functional.pad(control_latents.to(transformer.x_pad_token.dtype), (0, 0, 0, 0, 0, missing))
    return _pad(
        controlnet.control_all_x_embedder[embedder](_patchify(latents, patch)), transformer.x_pad_token
    )


def predict(
    transformer: ZImageTransformer2DModel,
    conditioning: Conditioning,
    latents: Tensor,
    timestep: float | Tensor | Modulation,
    control: Control | None = None,
) -> Tensor:
    """The transformer's raw output, float32, for latents (batch, 16, height, width).

    `timestep` is 1 - sigma: 0 is pure noise; one for all, or one for each, (batch,); or what `modulate` made
    of it. Without `control` no part of the branch runs.
    """
    patch, embedder = _patch(transformer)
    dtype = transformer.x_pad_token.dtype
    batch, _, height, width = latents.shape
    if isinstance(timestep, Modulation):
        modulation = timestep
    else:
        moments = torch.as_tensor(timestep, dtype=torch.float32, device=latents.device).reshape(-1)
        modulation = modulate_each(transformer, control and control.controlnet, moments)
    image_rope, rope = conditioning.image_rope, conditioning.rope

    image = _patchify(latents.to(dtype), patch)
    tokens = image.shape[1]
    image = _pad(transformer.all_x_embedder[embedder](image), transformer.x_pad_token)
    if control is None:
        image = _run(transformer.noise_refiner, image, image_rope, modulation)
    else:
        image, branch = _refine(transformer, control, image, image_rope, modulation)

    unified = torch.cat([image, conditioning.caption.expand(batch, -1, -1)], dim=1)
    if control is None:
        unified = _run(transformer.layers, unified, rope, modulation)
    else:
        # One for all pictures, as far as neither part differs from one to the other.
        rows = max(branch.shape[0], conditioning.caption.shape[0])
        parts = [part.expand(rows, -1, -1) for part in (branch, conditioning.caption)]
        branch = torch.cat(parts, dim=1)
        net = control.controlnet
        unified, _ = _run_controlled(
            transformer.layers,
            net.control_layers,
            net.control_layers_places,
            unified,
            branch,
            rope,
            modulation,
            control.scale,
        )

    final = transformer.all_final_layer[embedder]
    output = final.linear(final.norm_final(unified[:, :tokens]) * modulation.final)
    return _unpatchify(output.float(), patch, height, width)


def _refine(
    transformer: ZImageTransformer2DModel,
    control: Control,
    image: Tensor,
    rope: Tensor,
    modulation: Modulation,
) -> tuple[Tensor, Tensor]:
    """The noise refiner's stage with a control branch: refined image tokens and refined control tokens."""
    net = control.controlnet
    if net.add_control_noise_refiner is None:
        refined = _run(net.control_noise_refiner, control.tokens, rope, modulation)
        return _run(transformer.noise_refiner, image, rope, modulation), refined
    own = net.add_control_noise_refiner == "control_noise_refiner"
    return _run_controlled(
        transformer.noise_refiner,
        net.control_noise_refiner if own else net.control_layers,
        net.control_refiner_layers_places,
        image,
        control.tokens,
        rope,
        modulation,
        control.scale,
    )


def _run(layers: Sequence[nn.Module], x: Tensor, rope: Tensor, modulation: Modulation) -> Tensor:
    return _run_controlled(layers, (), (), x, x, rope, modulation, 0.0)[0]


def _run_controlled(
    layers: Sequence[nn.Module],
    blocks: Sequence[nn.Module],
    places: Sequence[int],
    x: Tensor,
    branch: Tensor,
    rope: Tensor,
    modulation: Modulation,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Run a stack and its control blocks side by side; the layer at `places[n]` gets the hint of `blocks[n]`.

    Side by side, as only the first block reads `x`, and before the first layer: one hint at a time is kept.
    Blocks without a place (2.0 in the refiner) still refine the branch.
    """
    block_at = dict(zip(places, blocks, strict=False))
    pending: Pending | None = None
    for place, layer in enumerate(layers):
        block = block_at.get(place)
        if block is not None:
            hint, branch = block(branch, x, rope, modulation.of(block))
        factors = modulation.of(layer)
        whole = not layer.hands_on or block is not None or place == len(layers) - 1 or _has_loras(layer)
        x = layer(x, rope, factors, pending, whole=whole)
        pending = None
        if not whole:
            x, fed = x
            pending = Pending(fed, factors[-1])
        if block is not None:
            x = torch.add(x, hint, alpha=scale)
    for block in list(blocks)[len(places) :]:
        _, branch = block(branch, x, rope, modulation.of(block))
    return x, branch


def _has_loras(layer: Any) -> bool:
    """Return True where a block has LoRAs beside its weights; it then gives whole tokens to the next one.

    So compiled blocks need one more code for LoRAs, and not one for each way of handing tokens on.
    """
    return getattr(layer.attention.to_q, "down", None) is not None


def _patch(transformer: ZImageTransformer2DModel) -> tuple[int, str]:
    """Side of a patch in latent pixels, and the name under which the embedders for it are kept."""
    patch = transformer.all_patch_size[0]
    return patch, f"{patch}-{transformer.all_f_patch_size[0]}"


def _patchify(latents: Tensor, patch: int) -> Tensor:
    """(batch, channels, height, width) to (batch, patches, patch * patch * channels), channels last."""
    batch, channels, height, width = latents.shape
    grid = latents.view(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def _unpatchify(tokens: Tensor, patch: int, height: int, width: int) -> Tensor:
    """The reverse of `_patchify`."""
    grid = tokens.view(tokens.shape[0], height // patch, width // patch, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(tokens.shape[0], -1, height, width)


def _pad(tokens: Tensor, pad_token: Tensor) -> Tensor:
    missing = -tokens.shape[1] % SEQ_MULTI_OF
    if not missing:
        return tokens
    return torch.cat([tokens, pad_token.expand(tokens.shape[0], missing, -1)], dim=1)


def _rope(
    transformer: ZImageTransformer2DModel, caption_tokens: int, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rotary tables of caption and image tokens; a position is (frame or caption place, row, column).

    Caption tokens take places 1, 2, …; the image follows as one frame; its padding sits at the origin.
    """
    patch, _ = _patch(transformer)
    rows, columns = height // patch, width // patch
    places = torch.arange(1, caption_tokens + 1, dtype=torch.int32, device=device)
    caption = nn.functional.pad(places[:, None], (0, 2))
    image = torch.cartesian_prod(
        # Filled there: a list would be copied there.
        torch.full((1,), caption_tokens + 1, dtype=torch.int32, device=device),
        torch.arange(rows, dtype=torch.int32, device=device),
        torch.arange(columns, dtype=torch.int32, device=device),
    )
    image = nn.functional.pad(image, (0, 0, 0, -image.shape[0] % SEQ_MULTI_OF))
    caption_rope, image_rope = (
        # No view, as the table of both is none: compiled code is good for the one or the other.
        torch.view_as_real(transformer.rope_embedder(ids))[None, :, None].clone()
        for ids in (caption, image)
    )
    return caption_rope, image_rope
