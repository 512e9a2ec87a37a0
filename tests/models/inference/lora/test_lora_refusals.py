"""What is refused as a LoRA, each with the sentence that says what it is."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor

from models.errors import LoraError
from models.inference.lora.names import module_index, read_key
from models.inference.lora.stack import LoraStack
from models.job import LoraFile
from tests.models.inference.lora.lora_files import (
    known_change,
    linears,
    lora_tensors,
    original,
    peft_metadata,
    tiny_transformer,
    write,
)
from tests.models.inference.lora.lora_formats import COMFYUI, flat

PAIRS = known_change().pairs
GOOD = lora_tensors(PAIRS, COMFYUI)
Q = "diffusion_model.layers.0.attention.to_q"


def pair(module: str, rank: int = 4, rows: int = 64, columns: int = 64) -> dict[str, Tensor]:
    return {
        f"{module}.lora_A.weight": torch.ones(rank, columns),
        f"{module}.lora_B.weight": torch.ones(rows, rank),
    }


def kohya(module: str) -> dict[str, Tensor]:
    return {f"{module}.lora_down.weight": torch.ones(4, 64), f"{module}.lora_up.weight": torch.ones(64, 4)}


REFUSED: dict[str, tuple[Mapping[str, Tensor], str]] = {
    "dora": (GOOD | {f"{Q}.dora_scale": torch.ones(64, 1)}, f'holds DoRA ("{Q}.dora_scale"), which is not'),
    "peft dora": (
        GOOD | {f"{Q}.lora_magnitude_vector": torch.ones(64)},
        f'holds DoRA ("{Q}.lora_magnitude_vector"), which is not supported',
    ),
    "oft": ({f"{Q}.oft_blocks": torch.ones(2, 4, 4)}, f'holds OFT ("{Q}.oft_blocks"), which is not'),
    "tucker": (GOOD | {f"{Q}.lokr_t2": torch.ones(2, 2)}, "holds Tucker factors"),
    "text encoder beside": (
        GOOD | kohya("lora_te_layers_0_mlp_up_proj"),
        'changes the text encoder ("lora_te_layers_0_mlp_up_proj.lora_down.weight"), which is not supported',
    ),
    "text encoder only": (
        pair("text_encoder.layers.0.self_attn.q_proj"),
        'changes the text encoder ("text_encoder.layers.0.self_attn.q_proj.lora_A.weight")',
    ),
    "flux": (pair("transformer.single_transformer_blocks.0.attn.to_q"), "was made for Flux"),
    "flux kohya": (kohya("lora_unet_double_blocks_0_img_attn_qkv"), "was made for Flux"),
    "sdxl": (
        kohya("lora_unet_down_blocks_1_attentions_0_proj_in") | kohya("lora_te1_text_model_encoder_layers_0"),
        "was made for Stable Diffusion or SDXL",
    ),
    "wan": (pair("diffusion_model.blocks.0.self_attn.q"), "was made for Wan"),
    "qwen-image": (pair("transformer.transformer_blocks.0.img_mlp.net.0.proj"), "was made for Qwen-Image"),
    "qwen-image attention": (pair("transformer_blocks.0.attn.to_q"), "was made for Qwen-Image or Stable"),
    "controlnet": (
        {"control_layers.0.attention.to_q.weight": torch.ones(64, 64)},
        "is a ControlNet checkpoint, not a LoRA",
    ),
    "checkpoint": (dict(tiny_transformer().named_parameters()), "is a whole transformer, not a LoRA"),
    "strange": (
        {f"something.{number}": torch.ones(2) for number in range(5)},
        'has no key that matches a layer of this model (5 in the file; first: "something.0", "something.1"',
    ),
    "alpha alone": ({f"{Q}.alpha": torch.tensor(4.0)}, f'(1 in the file; first: "{Q}.alpha")'),
    "no tensor": ({}, "(0 in the file; first: none)"),
    "larger model": (
        pair("diffusion_model.layers.0.attention.to_q", rows=128, columns=128),
        f'does not fit this model: "{Q}.lora_A.weight", "{Q}.lora_B.weight" make a 128x128 change for '
        "layers.0.attention.to_q, which is 64x64",
    ),
    "fused of a larger model": (
        pair("diffusion_model.layers.0.attention.qkv", rows=384, columns=128),
        "for layers.0.attention.to_q + layers.0.attention.to_k + layers.0.attention.to_v, which is 192x64",
    ),
    "one wrong shape among good ones": (GOOD | pair(Q, columns=32), "make a 64x32 change for layers.0"),
    "factors that do not multiply": (
        {f"{Q}.lora_A.weight": torch.ones(4, 64), f"{Q}.lora_B.weight": torch.ones(64, 8)},
        "make no matrix for layers.0.attention.to_q",
    ),
    "a convolution": (
        {f"{Q}.lora_A.weight": torch.ones(4, 64, 1, 1), f"{Q}.lora_B.weight": torch.ones(64, 4, 1, 1)},
        "make no matrix for layers.0.attention.to_q",
    ),
    "matrix for a norm": (
        pair("diffusion_model.layers.0.attention_norm1"),
        "make a 64x64 change for layers.0.attention_norm1, which is 64",
    ),
    "half a pair": (
        GOOD | {f"{Q}.lora_B.weight": None},
        f'is incomplete: for layers.0.attention.to_q it has only "{Q}.lora_A.weight"',
    ),
    "lokr of another shape": (
        {f"{Q}.lokr_w1": torch.ones(4, 4), f"{Q}.lokr_w2": torch.ones(16, 8)},
        "make a 64x32 change for layers.0.attention.to_q, which is 64x64",
    ),
    "lokr that does not multiply": (
        {
            f"{Q}.lokr_w1": torch.ones(4, 4),
            f"{Q}.lokr_w2_a": torch.ones(16, 2),
            f"{Q}.lokr_w2_b": torch.ones(4, 16),
        },
        "make no matrix for layers.0.attention.to_q",
    ),
    "loha of two shapes": (
        {
            f"{Q}.hada_w1_a": torch.ones(64, 2),
            f"{Q}.hada_w1_b": torch.ones(2, 64),
            f"{Q}.hada_w2_a": torch.ones(64, 2),
            f"{Q}.hada_w2_b": torch.ones(2, 32),
        },
        "make no matrix for layers.0.attention.to_q",
    ),
    "alpha that is a vector": (GOOD | {f"{Q}.alpha": torch.ones(4)}, "has an alpha that is no single number"),
    "eight-bit factors": (
        GOOD | {f"{Q}.lora_A.weight": torch.ones(4, 64).to(torch.float8_e4m3fn)},
        f'stores "{Q}.lora_A.weight" as F8_E4M3: save it in float16, bfloat16 or float32',
    ),
    "the same tensor twice": (
        GOOD | pair("transformer.layers.0.attention.to_q"),
        f'has the same tensor twice ("{Q}.lora_A.weight" and "transformer.layers.0.attention.to_q.lora_A',
    ),
}  # fmt: skip


def refusal(lora: LoraFile) -> str:
    """The sentence that refuses it; the model must be untouched."""
    model = tiny_transformer()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(LoraError) as caught:
        LoraStack(model).apply([lora])
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    return str(caught.value)


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_a_sentence_that_names_it(what: str, tmp_path: Path) -> None:
    tensors, words = REFUSED[what]
    present = {key: value for key, value in tensors.items() if value is not None}
    sentence = refusal(write(tmp_path / "mine.safetensors", present))
    assert sentence.startswith('LoRA "mine" ')
    assert words in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert str(tmp_path) not in sentence


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (peft_metadata(r=4, lora_alpha=4, use_dora=True), "holds DoRA (says its metadata)"),
        (peft_metadata(r=0, lora_alpha=4), "a `r` that cannot be used"),
        (peft_metadata(r=4, lora_alpha="much"), "a `lora_alpha` that cannot be used"),
        (peft_metadata(r=4, peft_type="VERA"), "a `peft_type` that cannot be used"),
        (peft_metadata(r=4, alpha_pattern={"(a+)+$": 4}), "a `alpha_pattern"),
        ({"lora_adapter_metadata": "no json"}, "that is no JSON object"),
        ({"lora_adapter_metadata": "[1]"}, "that is no JSON object"),
        ({"lora_adapter_metadata": "[" * 100_000}, "that is no JSON object"),
    ],
    ids=["dora", "rank", "alpha", "type", "pattern", "text", "list", "deep"],
)
def test_metadata_that_cannot_be_followed_is_refused(
    metadata: dict[str, str], words: str, tmp_path: Path
) -> None:
    assert words in refusal(write(tmp_path / "mine.safetensors", GOOD, metadata))


def test_metadata_of_another_component_alone_is_no_configuration(tmp_path: Path) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"text_encoder.r": 4})}
    lora = write(tmp_path / "mine.safetensors", GOOD, metadata)
    assert LoraStack(tiny_transformer()).apply([lora])[0].unmatched == 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle", b"\xff" * 100, b"<html>not found</html>"])
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(content)
    sentence = refusal(LoraFile(name="mine", path=path, scale=1.0, sha256="0" * 64))
    assert sentence.startswith('LoRA "mine" cannot be read: mine.safetensors is not a safetensors file')


def test_every_layer_of_the_published_model_is_found_under_every_spelling() -> None:
    with torch.device("meta"):
        published = ZImageTransformer2DModel(axes_lens=[1536, 512, 512])
    index = module_index(name for name, _ in published.named_parameters())
    for module in linears(published):
        for name in (module, original(module)):
            for prefix in ("", "transformer.", "diffusion_model."):
                found = read_key(f"{prefix}{name}.lora_A.weight")
                assert found is not None
                assert index[found.module] == (module,)
            for prefix in ("lora_unet_", "lora_unet__", "lora_transformer_", "lycoris_"):
                found = read_key(f"{flat(prefix)(name)}.lora_down.weight")
                assert found is not None
                assert index[found.module] == (module,)
