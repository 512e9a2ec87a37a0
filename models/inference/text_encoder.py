"""The text encoder's two uses: the embedding of a prompt, and its rewriting (Magic Prompt).

Template and layer are the checkpoint authors' (diffusers' `ZImagePipeline._encode_prompt`). The text encoder
is a Qwen3, whose embeddings are its language model head too: Magic Prompt needs no further weights.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3ForCausalLM

from models.inference.denoise.upload import upload
from models.inference.prompt_graphs import PromptGraphs
from models.inference.writing import Writer, run_layers
from models.prompt.expansion import MAX_NEW_TOKENS, Expansion, declined, judge, messages

MAX_TOKENS = 512
"""Prompt tokens that the model reads, chat template included; what comes after is cut off."""
GRAPH_LENGTH = 1152
"""Tokens that Magic Prompt's graph has room for: instructions, a prompt of `MAX_TOKENS`, and the answer."""


class Graphs:
    """The CUDA graphs of a text encoder, good as long as its weights stay in their place on a GPU."""

    def __init__(self, text_encoder: Qwen3ForCausalLM) -> None:
        self.prompts = PromptGraphs(partial(hidden_states, text_encoder), text_encoder.device)
        self.writer = Writer(text_encoder, GRAPH_LENGTH)


@torch.no_grad()
def encode_prompt(
    text_encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    graphs: Graphs | None = None,
) -> Tensor:
    """The embedding of `prompt`, shape (tokens, hidden size), in host memory and in the text encoder's dtype.

    In float16 it is smaller by a factor (models/inference/denoise/float16.py), which only a norm may read.

    The reference pads to 512 tokens and drops the padding's embeddings, which a causal model never lets the
    prompt's tokens see: here the prompt has its own length, or with `graphs` the next that there is one for.
    """
    asked = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    tokens = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    numbers: Tensor = tokens["input_ids"]
    hidden = graphs.prompts(numbers) if graphs else None
    if hidden is None:
        hidden = hidden_states(text_encoder, upload(numbers, text_encoder.device))
    return hidden[0].cpu()


@torch.no_grad()
def hidden_states(text_encoder: PreTrainedModel, tokens: Tensor) -> Tensor:
    """What the layer before the last one makes of tokens (1, tokens), as (1, tokens, hidden size).

    The last layer and the language model head, which Magic Prompt alone has a use for, are not run.
    """
    model: Any = text_encoder.base_model
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return run_layers(model, model.layers[:-1], tokens, places)


@torch.no_grad()
def expand_prompt(
    text_encoder: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    seed: int,
    graphs: Graphs | None = None,
) -> Expansion:
    """Have the text encoder rewrite `prompt` in more detail: the same for the same seed."""
    if len(tokenizer(prompt)["input_ids"]) > MAX_TOKENS:
        return declined("it is longer already than what the model reads")
    text = tokenizer.apply_chat_template(
        messages(prompt), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    tokens: Tensor = tokenizer(text, return_tensors="pt")["input_ids"]
    device, end = text_encoder.device, tokenizer.eos_token_id
    writer = graphs.writer if graphs else Writer(text_encoder)
    # What draws from the process's generator leaves it as it was, as others may have a use for it.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        answer = writer.write(tokens, MAX_NEW_TOKENS, end)
    return judge(prompt, str(tokenizer.decode(answer, skip_special_tokens=True)), finished=answer[-1] == end)
