"""A prompt as the picture model reads it: the text encoder's embedding of it.

Template and layer are the checkpoint authors' (diffusers' `ZImagePipeline._encode_prompt`). The text encoder
is a Qwen3, bare or with its language model head.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_TOKENS = 512
"""Prompt tokens that the model reads, chat template included; what comes after is cut off."""


@torch.no_grad()
def encode_prompt(text_encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> Tensor:
    """The embedding of `prompt`, shape (tokens, hidden size), on the text encoder's device and in its dtype.

    Run at the prompt's own length: the reference pads to 512 tokens and drops the padding's embeddings, which
    a causal model never lets the prompt's tokens see.
    """
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    tokens = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    output = text_encoder(
        input_ids=tokens["input_ids"].to(text_encoder.device),
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=1,
    )
    embedding: Tensor = output.hidden_states[-2][0]
    return embedding
