"""When a rewritten prompt is taken, and when the caller's own is used instead."""

import pytest

from models.prompt.expansion import MAX_CHARACTERS, judge, messages


def test_conversation_ends_with_the_prompt_as_it_is():
    system, user = messages('a sign that says "OPEN"')

    assert system["role"] == "system"
    assert user == {"role": "user", "content": 'a sign that says "OPEN"'}


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ("A red cube on a table.", "A red cube on a table."),
        ("  A red cube.\n", "A red cube."),
        ('"A red cube."', "A red cube."),
        ("“A red cube.”", "A red cube."),
        ('"STOP" on a red cube, beside "GO"', '"STOP" on a red cube, beside "GO"'),
        ("<think>\nHm.\n</think>\n\nA red cube.", "A red cube."),
    ],
)
def test_answer_is_taken(answer, taken):
    assert judge("a red cube", answer, finished=True) == (taken, None)


@pytest.mark.parametrize(
    ("answer", "finished", "reason"),
    [
        ("A red cube on", False, "cut off"),
        ("", True, "empty"),
        (" \n", True, "empty"),
        ('""', True, "empty"),
        ("<think>Hm.</think>", True, "empty"),
        ("word " * MAX_CHARACTERS, True, "too long"),
        ("A red cube <think> or two", True, "thoughts"),
        ("or two </think> A red cube", True, "thoughts"),
    ],
)
def test_answer_is_declined_with_the_reason(answer, finished, reason):
    prompt, warning = judge("a red cube", answer, finished=finished)

    assert prompt is None
    assert warning.startswith("The prompt was used as it is: ")
    assert reason in warning


@pytest.mark.parametrize("prompt", ['a sign "OPEN late"', "a sign “OPEN late”"])
def test_answer_that_lost_text_in_quotes_is_declined(prompt):
    assert judge(prompt, 'A sign with "OPEN late" in red.', finished=True).prompt
    assert "lost text in quotes" in judge(prompt, "A shop with a sign.", finished=True).warning
