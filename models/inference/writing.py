"""The text encoder as a writer: it goes on with a text, token after token, drawn by chance.

The keys and values of all tokens have their place from the beginning, so that every token is the same work at
the same addresses: one CUDA graph, where the host would launch 2,000 kernels. What is drawn is what
transformers' `generate` draws.
"""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3ForCausalLM
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from models.inference.denoise.upload import upload
from models.inference.device.capture import capture
from models.prompt.expansion import TEMPERATURE, TOP_K, TOP_P

CHOICE = TemperatureLogitsWarper(TEMPERATURE), TopKLogitsWarper(TOP_K), TopPLogitsWarper(TOP_P)
"""How scores become odds, in the order of `generate`."""

log = logging.getLogger(__name__)


def run_layers(
    model: Any,
    layers: Iterable[nn.Module],
    tokens: Tensor,
    places: Tensor,
    mask: Tensor | None = None,
    past: "Past | None" = None,
) -> Tensor:
    """What some of the layers of a Qwen3 make of tokens (1, tokens) at `places`, (tokens,): hidden states.

    Without a mask the attention is causal.
    """
    hidden: Tensor = model.embed_tokens(tokens)
    turns = model.rotary_emb(hidden, places[None])
    for layer in layers:
        hidden = layer(hidden, attention_mask=mask, past_key_values=past, position_embeddings=turns)
    return hidden


class Past:
    """The keys and values of a text that gets longer, as the attention of transformers asks for them."""

    def __init__(self, length: int, place: Tensor) -> None:
        self._length = length
        self._place = place
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.is_read = False
        """True when what comes is one token behind those that are there."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Keep what a layer makes of new tokens, (1, heads, tokens, width); all that they may look at."""
        if layer not in self._kept:
            whole, also = (
                part.new_zeros(*part.shape[:2], self._length, part.shape[3]) for part in (keys, values)
            )
            self._kept[layer] = whole, also
        kept = self._kept[layer]
        for whole, part in zip(kept, (keys, values), strict=True):
            if self.is_read:
                whole.index_copy_(2, self._place, part)
            else:
                whole[:, :, : part.shape[2]] = part
        return kept if self.is_read else (keys, values)


class Text:
    """A text of at most `length` tokens, and the odds of what comes next.

    `captured`: a token is one CUDA graph; where that fails it is done without from then on.
    """

    def __init__(self, model: Qwen3ForCausalLM, length: int, *, captured: bool = False) -> None:
        self._model: Any = model
        self._captured = captured
        self._token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        self._place = torch.zeros(1, dtype=torch.long, device=model.device)
        self._places = torch.arange(length, device=model.device)
        self._past = Past(length, self._place)
        self._graph: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def begin(self, tokens: Tensor) -> Tensor:
        """Read (1, tokens), in the place of what was there; the odds of each word, (1, words)."""
        count = tokens.shape[1]
        self._past.is_read = False
        hidden = self._hidden(tokens, self._places[:count])
        self._past.is_read = True
        self._place.fill_(count - 1)
        return self._odds(hidden[:, -1:])

    def add(self, token: Tensor) -> Tensor:
        """The odds behind one token more, (1, 1); good until the next call."""
        self._token.copy_(token)
        self._place.add_(1)
        if not self._captured:
            return self._next()
        try:
            if self._graph is None:
                self._graph = capture(self._next, self._model.device)
            graph, odds = self._graph
            graph.replay()
        except Exception as error:  # whatever it is, the same is done without
            log.warning("Magic Prompt runs without a CUDA graph: %s", str(error).partition("\n")[0])
            self._captured, self._graph = False, None
            return self._next()
        return odds

    def _next(self) -> Tensor:
        # All places have a value, and those that come later are not looked at.
        mask = (self._places <= self._place)[None, None, None]
        return self._odds(self._hidden(self._token, self._place, mask))

    def _hidden(self, tokens: Tensor, places: Tensor, mask: Tensor | None = None) -> Tensor:
        model = self._model.model
        return run_layers(model, model.layers, tokens, places, mask, self._past)

    def _odds(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self._model.lm_head(self._model.model.norm(hidden))[:, -1].float()
        for warp in CHOICE:
            scores = warp(self._token, scores)
        return scores.softmax(-1)


class Writer:
    """Goes on with texts; those of up to `graph_length` tokens by a CUDA graph, which is captured once."""

    def __init__(self, model: Qwen3ForCausalLM, graph_length: int = 0) -> None:
        self._model = model
        self._graph_length = graph_length
        self._kept: Text | None = None

    @torch.no_grad()
    def write(self, tokens: Tensor, limit: int, end: int) -> list[int]:
        """At most `limit` tokens behind these, (1, tokens), in host memory; `end` is the last if it comes.

        They are drawn from the process's generator.
        """
        text = self._text(tokens.shape[1] + limit)
        odds = text.begin(upload(tokens, self._model.device))
        written: list[int] = []
        while True:
            token = torch.multinomial(odds, 1)
            written.append(int(token.item()))
            if written[-1] == end or len(written) == limit:
                return written
            odds = text.add(token)

    def _text(self, length: int) -> Text:
        if length > self._graph_length:
            return Text(self._model, length)
        self._kept = self._kept or Text(self._model, self._graph_length, captured=True)
        return self._kept
