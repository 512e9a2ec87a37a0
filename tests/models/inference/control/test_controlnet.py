"""Which Union variant a checkpoint is, told from small files in the published key layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImageControlNetModel, ZImageTransformer2DModel
from safetensors.torch import load_file, save_file

from models.errors import ControlNetError
from models.inference.control.controlnet import KNOWN, Layout, load_controlnet
from models.inference.denoise.transformer import control_tokens

CONFIG: dict[str, Any] = {
    "all_patch_size": [2],
    "all_f_patch_size": [1],
    "in_channels": 16,
    "dim": 32,
    "n_layers": 30,
    "n_refiner_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 2,
    "norm_eps": 1e-5,
    "qk_norm": True,
}


def weights_of(layout: Layout, refiner: str | None) -> dict[str, torch.Tensor]:
    """Random weights in the layout's shapes, `refiner` saying which refiner blocks lie in the file."""
    torch.manual_seed(0)
    model = ZImageControlNetModel(
        control_layers_places=list(layout.places),
        control_in_dim=layout.channels,
        add_control_noise_refiner=refiner,
        dim=32,
        n_heads=2,
    )
    return {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


def load(path: Path, weights: dict[str, torch.Tensor], **config: Any) -> tuple[ZImageControlNetModel, Layout]:
    save_file(weights, path)
    return load_controlnet(path, CONFIG | config, torch.float32, "cpu")


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.variant)
def test_published_variants_are_told_apart_whatever_the_file_is_called(known: Layout, tmp_path: Path) -> None:
    weights = weights_of(known, "control_noise_refiner" if known.refiner else None)
    if known.variant == "2.0":
        for name in weights:
            if name.startswith("control_noise_refiner.") and "_proj." in name:
                weights[name].zero_()
    model, layout = load(tmp_path / "x.safetensors", weights)
    assert layout == known
    assert model.config.control_layers_places == list(known.places)
    assert torch.equal(
        model.control_layers[1].after_proj.weight, weights["control_layers.1.after_proj.weight"]
    )


@pytest.mark.parametrize(
    "name",
    [
        "Z-Image-Turbo-Fun-Controlnet-Union.safetensors",
        "Z-Image-Turbo-Fun-Controlnet-Union-2.1-8steps.safetensors",
        "Z-Image-Turbo-Fun-Controlnet-Union-2.1-2602-8steps.safetensors",
        "Z-Image-Turbo-Fun-Controlnet-Union-2.1-lite-2601-8steps.safetensors",
    ],
)
@pytest.mark.parametrize(("refiner", "variant"), [("zero", "2.0"), ("trained", "2.1")])
def test_zero_projections_tell_2_0_from_2_1_and_the_name_tells_nothing(
    refiner: str, variant: str, name: str, tmp_path: Path
) -> None:
    weights = weights_of(KNOWN[2], "control_noise_refiner")
    if refiner == "zero":
        for block in (0, 1):
            weights[f"control_noise_refiner.{block}.after_proj.weight"].zero_()
    model, layout = load(tmp_path / name, weights)
    assert layout.variant == variant
    assert (model.control_noise_refiner is None) == (variant == "2.0")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.variant)
def test_variants_are_told_apart_in_every_number_type(
    known: Layout, dtype: torch.dtype, tmp_path: Path
) -> None:
    stored = {
        name: tensor.to(dtype)
        for name, tensor in weights_of(known, known.refiner and "control_noise_refiner").items()
    }
    if known.variant == "2.0":
        stored["control_noise_refiner.0.after_proj.weight"] = torch.zeros(32, 32, dtype=dtype)
    model, layout = load(tmp_path / "x.safetensors", stored)
    assert layout == known
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float()), name


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.variant)
def test_channels_for_inpainting_stay_zero(known: Layout, tmp_path: Path) -> None:
    weights = weights_of(known, known.refiner)
    name = "control_all_x_embedder.2-1.weight"
    by_channel = weights[name].view(32, 4, known.channels)
    latents = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    transformer = ZImageTransformer2DModel(
        dim=32, n_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=8, axes_dims=[4, 6, 6]
    )
    transformer.x_pad_token.data.zero_()
    tokens = []
    for noise in (0.0, 1.0):
        by_channel[:, :, 16:] += noise
        model, _ = load(tmp_path / "x.safetensors", weights)
        with torch.no_grad():
            tokens.append(control_tokens(transformer, model, latents))
    assert torch.equal(*tokens)
    by_channel[:, :, :16] += 1
    model, _ = load(tmp_path / "x.safetensors", weights)
    with torch.no_grad():
        assert not torch.equal(control_tokens(transformer, model, latents), tokens[0])


def test_2_0_file_with_plain_refiner_blocks_is_2_0(tmp_path: Path) -> None:
    model, layout = load(tmp_path / "x.safetensors", weights_of(KNOWN[1], None))
    assert layout.variant == "2.0"
    assert model.control_noise_refiner is None


def test_control_blocks_are_spread_evenly_over_a_smaller_transformer(tmp_path: Path) -> None:
    smaller = Layout("1.0", (0, 2), 16, None)
    _, layout = load(tmp_path / "x.safetensors", weights_of(smaller, None), n_layers=4)
    assert layout == smaller


def test_given_layout_overrides_the_detection(tmp_path: Path) -> None:
    lite = Layout("2.1-lite", (0, 3), 33, "control_noise_refiner")
    save_file(weights_of(lite, "control_noise_refiner"), tmp_path / "x.safetensors")
    config = CONFIG | {"n_layers": 4}
    model, layout = load_controlnet(tmp_path / "x.safetensors", config, torch.float32, "cpu", lite)
    assert layout == lite
    assert model.config.control_layers_places == [0, 3]


@pytest.mark.parametrize(
    ("layout", "refiner"),
    [
        (Layout("", tuple(range(0, 28, 4)), 16, None), None),
        (Layout("", tuple(range(0, 30, 5)), 20, None), None),
        (Layout("", tuple(range(0, 30, 5)), 16, None), "control_noise_refiner"),
    ],
    ids=["7 blocks", "20 channels", "1.0 with control blocks in the refiner"],
)
def test_unknown_layout_is_an_error_that_says_what_it_has_and_what_is_known(
    layout: Layout, refiner: str | None, tmp_path: Path
) -> None:
    with pytest.raises(ControlNetError) as failure:
        load(tmp_path / "odd.safetensors", weights_of(layout, refiner))
    message = str(failure.value)
    assert f"odd.safetensors is of no known layout: it has {len(layout.places)} control blocks" in message
    assert all(f"{known.variant} (" in message for known in KNOWN)


def test_file_of_another_kind_is_refused_with_the_keys_seen(tmp_path: Path) -> None:
    with pytest.raises(ControlNetError, match=r"no ControlNet-Union checkpoint: it has lora_unet_a"):
        load(tmp_path / "x.safetensors", {"lora_unet_a": torch.ones(2)})


def test_branch_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlNetError, match=r"transformer of width 32; this one has 64"):
        load(tmp_path / "x.safetensors", weights_of(KNOWN[0], None), dim=64)


def test_missing_and_misshapen_tensors_are_named_before_any_is_read(tmp_path: Path) -> None:
    weights = weights_of(KNOWN[0], None)
    del weights["control_layers.3.ffn_norm1.weight"]
    weights["control_layers.0.before_proj.bias"] = torch.ones(7)
    with pytest.raises(ControlNetError) as failure:
        load(tmp_path / "x.safetensors", weights)
    assert "lacks control_layers.3.ffn_norm1.weight" in str(failure.value)
    assert "control_layers.0.before_proj.bias (7,) instead of (32,)" in str(failure.value)


def test_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(ControlNetError, match=r"x\.safetensors is not a safetensors file"):
        load_controlnet(tmp_path / "x.safetensors", CONFIG, torch.float32, "cpu")


@pytest.mark.parametrize("variant", ["1.0", "2.1"])
def test_recorded_reference_files_are_recognised(variant: str, tmp_path: Path) -> None:
    golden = load_file(Path(__file__).parents[3] / "golden" / f"union-{variant}.safetensors")
    weights = {
        name.removeprefix("controlnet."): tensor
        for name, tensor in golden.items()
        if name.startswith("controlnet.")
    }
    _, layout = load(tmp_path / "x.safetensors", weights, n_layers=4)
    assert (layout.variant, layout.places) == (variant, (0, 2))
