"""The prompt's embedding: diffusers' numbers, at the prompt's own length. Its rewriting: seeded, or none."""

from functools import partial

import pytest
import torch
from diffusers import ZImagePipeline
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from models.inference.text_encoder import (
    GRAPH_LENGTH,
    MAX_TOKENS,
    Graphs,
    encode_prompt,
    expand_prompt,
    hidden_states,
)
from models.inference.writing import Writer
from models.prompt.expansion import MAX_NEW_TOKENS, TEMPERATURE, TOP_K, TOP_P
from models.weights import demo

CHAT_TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""
"""Qwen3's own template, without what it has for tools and for several turns."""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: every string can be read and written."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<think>", "</think>"],
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="module")
def text_encoder(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


def reference(text_encoder, tokenizer, prompt: str) -> torch.Tensor:
    """What diffusers' pipeline gives for the prompt, padded to 512 tokens inside."""
    pipeline = ZImagePipeline(None, None, text_encoder, tokenizer, None)
    with torch.no_grad():
        embeddings, _ = pipeline.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
    return embeddings[0]


@pytest.mark.parametrize("prompt", ["", "a red cube", "ein süßer Hund, 红色立方体 🐕", "word " * 300])
def test_embedding_equals_that_of_diffusers_padded_run(text_encoder, tokenizer, prompt):
    embedding = encode_prompt(text_encoder, tokenizer, prompt)

    torch.testing.assert_close(embedding, reference(text_encoder, tokenizer, prompt), rtol=0, atol=1e-5)


def test_embedding_has_the_prompts_own_length(text_encoder, tokenizer):
    short = encode_prompt(text_encoder, tokenizer, "a red cube")
    longer = encode_prompt(text_encoder, tokenizer, "a red cube, and")

    assert longer.shape[0] - short.shape[0] == len(", and")


def test_prompt_past_512_tokens_is_cut_off(text_encoder, tokenizer):
    assert encode_prompt(text_encoder, tokenizer, "x" * 2000).shape == (MAX_TOKENS, 32)


def test_layer_that_nothing_comes_of_is_not_run(text_encoder, tokenizer):
    with text_encoder.model.layers[-1].register_forward_hook(lambda *_: pytest.fail("it was run")):
        encode_prompt(text_encoder, tokenizer, "a red cube")


def test_what_fills_a_graph_up_changes_no_embedding(text_encoder):
    tokens = torch.arange(3, 23)[None]
    alone, filled = (hidden_states(text_encoder, F.pad(tokens, (0, more))) for more in (0, 12))
    torch.testing.assert_close(alone, filled[:, :20], rtol=0, atol=1e-5)


def test_prompt_is_encoded_as_well_where_no_graph_can_be_captured(text_encoder, tokenizer, caplog):
    graphs = Graphs(text_encoder)
    plain = encode_prompt(text_encoder, tokenizer, "a red cube")
    assert torch.equal(encode_prompt(text_encoder, tokenizer, "a red cube", graphs), plain)
    assert "runs without CUDA graphs" in caplog.text


def test_bare_text_encoder_gives_the_same_numbers_as_the_language_model(text_encoder, tokenizer):
    bare: Qwen3Model = text_encoder.model

    assert torch.equal(
        encode_prompt(bare, tokenizer, "a cat"), encode_prompt(text_encoder, tokenizer, "a cat")
    )


def language_model(tokenizer, scores: dict[str, float]) -> Qwen3ForCausalLM:
    """A real language model that says, at every step, one of the tokens of `scores`, likelier the higher."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=False,
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # Every token's state is all ones then, so a token's score is the sum of its row in the head.
        model.model.embed_tokens.weight.fill_(1.0)
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight[:, 0] = -100.0
        for token, score in scores.items():
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(token), 0] = score
    return model


LETTERS = dict.fromkeys("abcdefgh", 0.0)


@pytest.fixture
def writer(tokenizer) -> Qwen3ForCausalLM:
    return language_model(tokenizer, {**LETTERS, tokenizer.eos_token: 0.1})


def test_expansion_is_the_same_for_the_same_seed_and_another_for_another(writer, tokenizer):
    first, again = ([expand_prompt(writer, tokenizer, "a red cube", seed) for seed in range(5)] for _ in "ab")

    assert first == again
    answers = {expansion.prompt for expansion in first if expansion.prompt}
    assert len(answers) > 1
    assert set("".join(answers)) <= set(LETTERS)


def test_expansion_leaves_the_process_generator_as_it_was(writer, tokenizer):
    torch.manual_seed(5)
    undisturbed = torch.rand(1)
    torch.manual_seed(5)

    expand_prompt(writer, tokenizer, "a red cube", seed=1)

    assert torch.equal(torch.rand(1), undisturbed)


def generated(model: Qwen3ForCausalLM, tokens: torch.Tensor, limit: int, end: int) -> list[int]:
    """What transformers' own `generate` draws behind these tokens."""
    sampling = GenerationConfig(
        max_new_tokens=limit,
        do_sample=True,
        temperature=TEMPERATURE,
        top_p=TOP_P,
        top_k=TOP_K,
        eos_token_id=end,
        pad_token_id=end,
    )
    mask = torch.ones_like(tokens)
    output = model.generate(tokens, attention_mask=mask, generation_config=sampling)
    return output[0, tokens.shape[1] :].tolist()


class Replayed:
    """Stands for a CUDA graph: what it gives lies where it lay the first time."""

    def __init__(self, run) -> None:
        self.run, self.odds, self.replays = run, run(), 0

    def replay(self) -> None:
        self.odds.copy_(self.run())
        self.replays += 1


@pytest.mark.parametrize("name", ["demo", "small"])
def test_writer_draws_the_tokens_of_generate_with_and_without_a_graph(name, text_encoder, monkeypatch):
    model = text_encoder
    if name == "demo":
        model = Qwen3ForCausalLM.from_pretrained(demo.FOLDER / "text_encoder").float().eval()
    graphs: list[Replayed] = []

    def capture(run, device):
        graphs.append(Replayed(run))
        return graphs[-1], graphs[-1].odds

    monkeypatch.setattr("models.inference.writing.capture", capture)
    writers, end = (Writer(model), Writer(model, GRAPH_LENGTH)), 7
    for seed, length in enumerate((30, 7, 60, 7)):
        prompt = torch.randint(8, model.config.vocab_size, (1, length))
        drawn = []
        for write in (partial(generated, model), *(writer.write for writer in writers)):
            torch.manual_seed(seed)
            drawn.append(write(prompt, 40, end))
        assert drawn[0] == drawn[1] == drawn[2]
    assert len(graphs) == 1
    assert graphs[0].replays > 40


def test_magic_prompt_is_written_as_well_where_no_graph_can_be_captured(
    writer, tokenizer, caplog, monkeypatch
):
    # A token a byte makes the instructions longer than a Qwen3's would be.
    monkeypatch.setattr("models.inference.text_encoder.GRAPH_LENGTH", 3000)
    graphs = Graphs(writer)
    for seed in range(3):
        found = [expand_prompt(writer, tokenizer, "a red cube", seed, each) for each in (None, graphs)]
        assert found[0] == found[1]
    assert caplog.text.count("Magic Prompt runs without a CUDA graph") == 1


def test_answer_that_never_ends_is_cut_off_and_declined(tokenizer, monkeypatch):
    assert MAX_NEW_TOKENS == 300
    monkeypatch.setattr("models.inference.text_encoder.MAX_NEW_TOKENS", 20)
    writer = language_model(tokenizer, LETTERS)
    steps = []
    writer.model.norm.register_forward_hook(lambda *_: steps.append(1))

    prompt, warning = expand_prompt(writer, tokenizer, "a red cube", seed=1)

    assert prompt is None
    assert "cut off" in warning
    assert len(steps) == 20


def test_answer_that_is_empty_is_declined(tokenizer):
    writer = language_model(tokenizer, {tokenizer.eos_token: 0.0})

    prompt, warning = expand_prompt(writer, tokenizer, "a red cube", seed=1)

    assert prompt is None
    assert "empty" in warning


def test_prompt_that_fills_the_model_is_not_expanded(writer, tokenizer):
    prompt, warning = expand_prompt(writer, tokenizer, "x" * 600, seed=1)

    assert prompt is None
    assert "longer already" in warning
