"""Magic Prompt: how a language model is asked to rewrite a prompt, and which of its answers are taken.

The text encoder (`models.inference.text_encoder`) and a server (`models.prompt.server`) are asked in the same
words, and their answers are judged by the same rules.
"""

import re
from typing import NamedTuple

MAX_NEW_TOKENS = 300
"""The most that the model may write: a prompt well inside the 512 tokens that the picture model reads."""

MAX_CHARACTERS = 2_000
"""The longest answer that is taken: what 300 tokens of English come to, and half as much again."""

TEMPERATURE = 0.7
TOP_P = 0.8
TOP_K = 20
"""Qwen3's own advice for answers without thinking."""

SYSTEM_PROMPT = """\
You rewrite prompts for a model that makes pictures from text. Answer with one paragraph that describes the \
picture, in the language of the prompt.

Keep all that the prompt says: every subject, how many there are of each, names, actions, colours and the \
style. Copy words in double quotes letter by letter, quotes included: they are written in the picture.

Add what the prompt leaves open and a viewer would see: where things stand in the frame, the viewpoint, what \
is near and what is far, where the light comes from, materials and surfaces, the background, a few colours \
that go together. Add no person, no animal and no lettering that the prompt does not have.

Describe things, not their effect. No praise, no quality words such as masterpiece, 8K or stunning, no list, \
no heading, no remark.

Write at most 150 words: the description and nothing else."""

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_QUOTED = re.compile(r'["“]([^"“”]+)["”]')


class Expansion(NamedTuple):
    """A rewritten prompt, or the reason why the caller's own is used."""

    prompt: str | None = None
    warning: str | None = None


def messages(prompt: str) -> list[dict[str, str]]:
    """The conversation that asks for `prompt` to be rewritten."""
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": prompt}]


def judge(prompt: str, answer: str, *, finished: bool) -> Expansion:
    """`answer` as the new prompt, unless it is cut off (not `finished`), empty, too long or broken."""
    text = _THOUGHTS.sub("", answer).strip()
    if len(text) > 1 and text[0] in '"“' and text[-1] in '"”' and not _QUOTED.search(text[1:-1]):
        text = text[1:-1].strip()
    if not finished:
        return declined("the rewritten one was cut off")
    if not text:
        return declined("the rewritten one was empty")
    if len(text) > MAX_CHARACTERS:
        return declined("the rewritten one was too long")
    if "<think>" in text or "</think>" in text:
        return declined("the rewritten one was mixed with the model's thoughts")
    if any(quoted not in text for quoted in _QUOTED.findall(prompt)):
        return declined("the rewritten one lost text in quotes")
    return Expansion(prompt=text)


def declined(reason: str) -> Expansion:
    return Expansion(warning=f"The prompt was used as it is: {reason}.")
