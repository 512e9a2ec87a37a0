"""The demo's tokenizer: a byte-level BPE of its own behind `Qwen2Tokenizer`, with a chat template in
Qwen3's manner.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

VOCABULARY: Final = 1280
PAD_TO: Final = 32
"""The transformer pads captions to a multiple of this."""
SPECIAL_TOKENS: Final = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
CHAT_TEMPLATE: Final = r"""
{%- for message in messages -%}
  {{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ '<|im_start|>assistant\n' }}
  {%- if enable_thinking is defined and enable_thinking is false -%}
    {{ '<think>\n\n</think>\n\n' }}
  {%- endif -%}
{%- endif -%}
"""


def build_tokenizer(corpus: Sequence[str]) -> Qwen2Tokenizer:
    """Learns merges from `corpus`; what no merge covers is spelled in bytes, so any text can be read."""
    trained = Tokenizer(models.BPE())
    # Qwen2Tokenizer's own splitting, so that the merges are learned on the pieces that it will make.
    trained.pre_tokenizer = Qwen2Tokenizer(vocab={"a": 0}, merges=[]).backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator([*corpus, "system\nuser\nassistant\n\n"], trainer)
    model = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )
    tokenizer.add_tokens(SPECIAL_TOKENS, special_tokens=True)
    return tokenizer


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The prompt in the chat template, as the pipeline gives it to the text encoder."""
    return chat_text(tokenizer, [{"role": "user", "content": prompt}], thinking=True)


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, thinking: bool) -> str:
    """A conversation in the chat template, up to where the assistant answers."""
    return str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
    )


def token_batch(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right to the longest, and each text's length: (N, tokens) and (N,)."""
    rows = [torch.tensor(row) for row in tokenizer(list(texts))["input_ids"]]
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0), lengths
