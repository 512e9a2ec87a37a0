"""The demo model is small, complete, the same every time, and laid out as the published weights are."""

import hashlib
import json
from pathlib import Path

import torch
from diffusers import ZImageTransformer2DModel
from transformers import AutoTokenizer, Qwen3ForCausalLM

from models.checkpoint import kind, read_header
from models.controlnet import load_controlnet
from models.demo import write_demo
from models.weights import missing_files


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_demo_is_complete_and_small(demo_dir: Path) -> None:
    assert not list(missing_files(demo_dir))
    assert sum(path.stat().st_size for path in demo_dir.rglob("*") if path.is_file()) < 20e6


def test_demo_is_the_same_bytes_whatever_was_drawn_before(demo_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    again = write_demo(tmp_path / "deep" / "demo")
    assert digests(again) == digests(demo_dir)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [path.name for path in again.parent.iterdir()] == ["demo"]


def test_demo_that_is_there_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    write_demo(folder)
    assert [path.name for path in folder.iterdir()] == ["model_index.json"]


def test_control_checkpoint_has_the_published_key_layout_of_union_1_0(demo_dir: Path) -> None:
    path = demo_dir / "controlnet.safetensors"
    header = read_header(path)
    assert kind(header) == "controlnet"
    assert {name.split(".")[0] for name in header.tensors} == {
        "control_layers",
        "control_noise_refiner",
        "control_all_x_embedder",
    }
    config = ZImageTransformer2DModel.load_config(demo_dir / "transformer")
    _, layout = load_controlnet(path, config, torch.float32, "cpu")
    assert layout.variant == "1.0"


def test_tokenizer_takes_any_text_and_switches_thinking_as_qwen3_does(demo_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_dir / "tokenizer")
    text = "a red 猫 <|im_end|> ünïcode 🎈"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    chat = [{"role": "user", "content": "a cat"}]
    asked = tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    assert asked == "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
    quiet = tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert quiet == asked + "<think>\n\n</think>\n\n"


def test_text_encoder_is_the_language_model_with_tied_embeddings(demo_dir: Path) -> None:
    config = json.loads((demo_dir / "text_encoder" / "config.json").read_text())
    assert config["tie_word_embeddings"]
    assert "lm_head.weight" not in read_header(demo_dir / "text_encoder" / "model.safetensors").tensors
    model = Qwen3ForCausalLM.from_pretrained(demo_dir / "text_encoder")
    assert model.lm_head.weight is model.model.embed_tokens.weight
