"""Names in the authors' layout and in diffusers', judged by diffusers' own conversion."""

from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
from safetensors import safe_open

from models.inference.loading.original_names import diffusers_names, original_name


def test_original_names_become_those_that_diffusers_makes_of_them(tiny_model: Path) -> None:
    with safe_open(next((tiny_model / "transformer").glob("*.safetensors")), framework="pt") as file:
        names = set(file.keys())
    originals = {original_name(name) for name in names}
    assert len(originals) < len(names), "query, key and value are one"
    assert not originals >= names
    converted = convert_z_image_transformer_checkpoint_to_diffusers(
        {original: torch.zeros(3) for original in originals}
    )
    assert {name for original in originals for name in diffusers_names(original)} == set(converted) == names


def test_fused_tensor_is_query_key_and_value_in_this_order() -> None:
    assert diffusers_names("layers.0.attention.qkv.weight") == (
        "layers.0.attention.to_q.weight",
        "layers.0.attention.to_k.weight",
        "layers.0.attention.to_v.weight",
    )


def test_only_whole_parts_of_a_name_are_translated() -> None:
    for name in (
        "all_x_embedder.2-1.weight",
        "control_x_embedder.weight",
        "layers.0.self_attn.q_norm",
    ):
        assert diffusers_names(name) == (name,)
