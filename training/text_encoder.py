"""The text encoder: a small Qwen3 language model, trained to continue captions and to know what they say.

The transformer reads the second-to-last hidden state, which the last layer's loss alone would shape but
loosely: linear probes on its last token are asked for every attribute of the scene, so that one token sums
the sentence up.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from models.prompt import expansion
from training.captions import brief_caption, caption
from training.presets import Preset
from training.progress import Progress, learning_rate, set_learning_rate
from training.runtime import Runtime
from training.scenes import Scene, sample_scene
from training.tokens import VOCABULARY, build_tokenizer, chat_text, prompt_text, token_batch
from training.vocabulary import COLOURS, GROUNDS, OBJECTS, PLACES, POSES, SKIES

WIDTH: Final = 128
_LAYERS: Final = 4
_PEAK: Final = 2e-3
_BATCH: Final = 64
_CORPUS_SCENES: Final = 6000
_POOL: Final = 20_000
_EXPANSION_WEIGHT: Final = 40
"""Copies of the expansion's instructions in the tokenizer's corpus: enough for merges of their words."""
_HELD_OUT_EVERY: Final = 8
"""8 of the 64 combinations are held out."""
_EXPANSION_EVERY: Final = 4
_EXPANSION_BATCH: Final = 8

# What the probes are asked; the first class of each is "not there".
_QUESTIONS: Final[dict[str, list[str]]] = {
    "kind": ["", *OBJECTS], "colour": ["", *COLOURS], "size": ["", "small", "large"], "pose": ["", *POSES],
    "kind2": ["", *OBJECTS], "colour2": ["", *COLOURS], "ground": ["", *GROUNDS], "sky": ["", *SKIES],
    "place": ["", *PLACES],
}  # fmt: skip


def build(vocabulary: int = VOCABULARY) -> Qwen3ForCausalLM:
    """An untrained text encoder."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
    )


def _answers(scene: Scene) -> list[int]:
    first, second = scene.things[0], scene.things[1] if len(scene.things) > 1 else None
    said = {
        "kind": first.kind, "colour": first.colour, "size": first.size, "pose": first.pose,
        "kind2": second.kind if second else "", "colour2": second.colour if second else "",
        "ground": scene.ground, "sky": scene.sky, "place": scene.place,
    }  # fmt: skip
    return [_QUESTIONS[name].index(said[name]) for name in _QUESTIONS]


def worded(scene: Scene, variant: int) -> str:
    """A caption of the scene, one in three with phrases that say nothing."""
    rng = np.random.default_rng((scene.seed, variant))
    return caption(scene, rng, fillers=int(rng.integers(1, 6)) if rng.random() < 0.33 else 0)


def _captions(tokenizer: PreTrainedTokenizerBase, seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts of scenes in the chat template: tokens, lengths, and the answers to the probes' questions."""
    texts, answers = [], []
    for seed in seeds:
        scene = sample_scene(seed, pairs=0.3, figures=0.2)
        texts.append(prompt_text(tokenizer, worded(scene, seed)))
        answers.append(_answers(scene))
    return *token_batch(tokenizer, texts), torch.tensor(answers)


def expansions(
    tokenizer: PreTrainedTokenizerBase, seeds: Sequence[int], *, every_pair: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Conversations that ask for a brief prompt to be expanded, as `models.prompt.expansion` asks, with the
    answer: tokens, where each answer starts, lengths. With `every_pair` the colours and objects that pictures
    never show together are among them, as often as others.
    """
    asked, texts = [], []
    for seed in seeds:
        scene = sample_scene(seed, held_out=every_pair and seed % _HELD_OUT_EVERY == 0)
        rng = np.random.default_rng((seed, 2))
        asked.append(chat_text(tokenizer, expansion.messages(brief_caption(scene, rng)), thinking=False))
        texts.append(f"{asked[-1]}{caption(scene, rng, whole=True)}<|im_end|>")
    tokens, lengths = token_batch(tokenizer, texts)
    return tokens, token_batch(tokenizer, asked)[1], lengths


def language_loss(logits: Tensor, ids: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """Next-token loss of the tokens from `starts` up to `lengths`."""
    place = torch.arange(1, ids.shape[1], device=ids.device)[None]
    outside = (place < starts[:, None]) | (place >= lengths[:, None])
    targets = ids[:, 1:].masked_fill(outside, -100)
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten())


def load(folder: Path, runtime: Runtime) -> tuple[Qwen3ForCausalLM, Qwen2Tokenizer]:
    """The text encoder and the tokenizer of a training folder or of a bundle."""
    loaded: Any = Qwen3ForCausalLM.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    return loaded.to(runtime.device).eval(), Qwen2Tokenizer.from_pretrained(folder / "tokenizer")


def train(preset: Preset, folder: Path, runtime: Runtime) -> tuple[Qwen3ForCausalLM, Qwen2Tokenizer]:
    """The trained text encoder and its tokenizer; loaded when they are there already."""
    finished = folder / "text_encoder"
    if finished.exists():
        return load(folder, runtime)
    torch.manual_seed(1)
    corpus = [worded(sample_scene(seed), seed) for seed in range(_CORPUS_SCENES)]
    tokenizer = build_tokenizer(corpus + [expansion.SYSTEM_PROMPT] * _EXPANSION_WEIGHT)
    encoder = build(len(tokenizer))
    nn.Module.to(encoder, runtime.device)
    probes = nn.ModuleList(nn.Linear(WIDTH, len(classes)) for classes in _QUESTIONS.values()).to(
        runtime.device
    )
    parameters = [*encoder.parameters(), *probes.parameters()]
    optimizer = torch.optim.AdamW(parameters, _PEAK, betas=(0.9, 0.98), weight_decay=0.01)
    progress = Progress(
        folder, "text", preset.minutes["text"], {"model": encoder, "probes": probes, "optimizer": optimizer}
    )
    tokens, lengths, answers = (part.to(runtime.device) for part in _captions(tokenizer, range(_POOL)))
    talk, talk_starts, talk_lengths = (
        part.to(runtime.device) for part in expansions(tokenizer, range(_POOL // 4))
    )
    for fraction in progress.steps():
        set_learning_rate(optimizer, learning_rate(fraction, _PEAK, progress.step))
        if progress.step % _EXPANSION_EVERY == 0:
            rows = torch.randint(len(talk), (_EXPANSION_BATCH,), device=runtime.device)
            ids = talk[rows, : int(talk_lengths[rows].max())]
            with runtime.autocast():
                output = encoder(input_ids=ids, use_cache=False)
            loss = language_loss(output.logits, ids, talk_starts[rows], talk_lengths[rows])
            progress.record(expansion=loss.detach())
        else:
            rows = torch.randint(len(tokens), (_BATCH,), device=runtime.device)
            ids = tokens[rows, : int(lengths[rows].max())]
            with runtime.autocast():
                output = encoder(input_ids=ids, output_hidden_states=True, use_cache=False)
                read = F.rms_norm(output.hidden_states[-2], (WIDTH,))
                last = read[torch.arange(len(rows), device=runtime.device), lengths[rows] - 1]
                asked = torch.stack(
                    [F.cross_entropy(probe(last), answers[rows, at]) for at, probe in enumerate(probes)]
                ).mean()
            language = language_loss(output.logits, ids, torch.ones_like(rows), lengths[rows])
            loss = language + asked
            progress.record(language=language.detach(), asked=asked.detach())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(finished)
    return encoder.eval(), tokenizer


@torch.no_grad()
def embed(
    encoder: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> list[Tensor]:
    """What the transformer reads of each prompt: (tokens, WIDTH), bfloat16 on the CPU.

    `models.inference.text_encoder` gives the same.
    """
    embeddings: list[Tensor] = []
    texts = [prompt_text(tokenizer, prompt) for prompt in prompts]
    for at in range(0, len(texts), 256):
        tokens, lengths = token_batch(tokenizer, texts[at : at + 256])
        output = encoder(input_ids=tokens.to(encoder.device), output_hidden_states=True, use_cache=False)
        states = output.hidden_states[-2].bfloat16().cpu()
        embeddings += [row[:length].clone() for row, length in zip(states, lengths.tolist(), strict=True)]
    return embeddings
