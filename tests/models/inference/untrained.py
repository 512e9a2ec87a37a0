"""A tiny untrained model of real components in the layout of the published weights, for tests that must be
quick.

Its pictures are coloured noise that answers to the prompt, the control picture and LoRAs, at any size.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImageControlNetModel,
    ZImageTransformer2DModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from training.export import MODEL_INDEX

SEED = 20260117
VOCABULARY = 512
WIDTH = 64
CONTROLNET = "controlnet.safetensors"

GAINS = {"norm_q": 4.0, "attention_norm2": 4.0, "all_final_layer": 3.0}
"""Random weights with these parts made larger, or thousands of image tokens drown the few of the prompt;
larger still, and a rounding error grows into another picture."""

CHAT_TEMPLATE = r"""
{%- for message in messages -%}
  {{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ '<|im_start|>assistant\n' }}
  {%- if enable_thinking is false -%}
    {{ '<think>\n\n</think>\n\n' }}
  {%- endif -%}
{%- endif -%}
"""
"""In the manner of Qwen3: a turn a line, and an empty thought where thinking is switched off."""

END_OF_TURN = "<|im_end|>"
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", END_OF_TURN, "<think>", "</think>"]

CORPUS = """
a photograph of a person standing in the street at sunset, warm light on the face, soft shadows
an oil painting of a red ball and a blue cube on a green table, in front of a white wall
a small house by the lake, mountains in the distance, clear sky, morning mist over the water
a black cat sleeping on a wooden chair next to an open window, yellow curtains, quiet room
a close portrait of an old woman with grey hair, detailed skin, studio lighting, shallow depth of field
a city at night in the rain, neon signs, reflections on the wet road, people with umbrellas
a bowl of fruit, oranges and apples, still life, dark background, high detail, sharp focus
a dog running through a field of flowers under a cloudy sky, motion, bright colours, summer
a minimal drawing of a tree on a hill, black ink on white paper, thin lines, empty space
system user assistant
"""
"""What the tokenizer's merges are learned from; bytes that it lacks are single tokens."""


def write_untrained(folder: Path) -> Path:
    """Writes the model into `folder`, the same bytes each time; returns `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        _write_components(folder)
    return folder


def write_lora(path: Path) -> None:
    """A LoRA of rank 4 for this model, in peft's own key names."""
    random = torch.Generator().manual_seed(5)
    tensors = {
        f"transformer.layers.{layer}.attention.{projection}.lora_{part}.weight": torch.randn(
            shape, generator=random
        )
        for layer in range(4)
        for projection in ("to_q", "to_k", "to_v")
        for part, shape in (("A", (4, WIDTH)), ("B", (WIDTH, 4)))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def _write_components(folder: Path) -> None:
    _tokenizer().save_pretrained(folder / "tokenizer")
    _text_encoder().save_pretrained(folder / "text_encoder")
    _transformer().save_pretrained(folder / "transformer")
    _vae().save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    save_file(_controlnet().state_dict(), folder / CONTROLNET)
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))


def _tokenizer() -> Qwen2Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS.splitlines(), trainer)
    model = json.loads(trained.to_str())["model"]
    # Any: the annotation asks for merges as text, the code for pairs.
    merges: Any = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token=END_OF_TURN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )
    tokenizer.add_tokens(SPECIAL_TOKENS, special_tokens=True)
    return tokenizer


def _text_encoder() -> Any:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            initializer_range=0.2,
        )
    )


def _transformer() -> Any:
    transformer = ZImageTransformer2DModel(
        dim=WIDTH,
        n_layers=4,
        n_heads=1,
        n_kv_heads=1,
        cap_feat_dim=WIDTH,
        axes_dims=[16, 24, 24],
        axes_lens=[1536, 512, 512],
    )
    with torch.no_grad():
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            token.normal_()
        for name, parameter in transformer.named_parameters():
            for part, gain in GAINS.items():
                if part in name:
                    parameter.mul_(gain)
    return transformer


def _controlnet() -> Any:
    """Union 1.0 for a transformer of four layers, its projections not zero as they would be untrained."""
    controlnet = ZImageControlNetModel(
        control_layers_places=[0, 2], control_in_dim=16, dim=WIDTH, n_heads=1, n_kv_heads=1
    )
    for name, parameter in controlnet.named_parameters():
        if "_proj.weight" in name:
            nn.init.normal_(parameter, std=WIDTH**-0.5)
    return controlnet


def _vae() -> Any:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 32),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        force_upcast=True,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
