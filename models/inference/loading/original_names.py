"""The names of the transformer's modules in the authors' own layout, and diffusers' names for the same.

ComfyUI's files and most trainers keep the authors' layout. The pairs are those of diffusers'
`convert_z_image_transformer_checkpoint_to_diffusers`. A name may be a module's or a tensor's: only whole
parts between its dots count.
"""

import re

COMFYUI_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""What ComfyUI writes before a name of the transformer."""

FUSED = "attention.qkv"
PROJECTIONS = ("attention.to_q", "attention.to_k", "attention.to_v")
"""diffusers' modules that the fused one consists of, row after row."""

PAIRS = (
    # The authors' name, diffusers' name.
    ("x_embedder", "all_x_embedder.2-1"),
    ("final_layer", "all_final_layer.2-1"),
    ("attention.out", "attention.to_out.0"),
    ("attention.q_norm", "attention.norm_q"),
    ("attention.k_norm", "attention.norm_k"),
)


def diffusers_names(original: str) -> tuple[str, ...]:
    """What diffusers calls an original module or tensor: query, key and value for a fused one, else one name.

    A name that is diffusers' already stays as it is.
    """
    for theirs, ours in PAIRS:
        original = _replaced(original, theirs, ours)
    fused = tuple(_replaced(original, FUSED, projection) for projection in PROJECTIONS)
    return fused if fused[0] != original else (original,)


def original_name(name: str) -> str:
    """What the authors call one of diffusers' modules or tensors; the fused one for query, key and value."""
    for theirs, ours in PAIRS:
        name = _replaced(name, ours, theirs)
    for projection in PROJECTIONS:
        name = _replaced(name, projection, FUSED)
    return name


def _replaced(name: str, old: str, new: str) -> str:
    return re.sub(rf"(?<![^.]){re.escape(old)}(?![^.])", new, name)
