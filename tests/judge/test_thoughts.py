"""What a model says, apart from its reasoning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.judge.thoughts import spoken

TAGS = ["think", "thinking", "thought", "reasoning", "THINK", "seed:think"]
WORDS = st.text(st.sampled_from("ab1,[] .\n`"), max_size=20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>hmm</think>\n\ncats", "cats"),
        ("  <think>\na\n\nb</think>cats", "cats"),
        ("<think></think>cats", "cats"),
        ("<think>a</think><think>b</think>cats", "cats"),
        ("<think>a</think>\n<think>b</think>\ncats", "cats"),
        ("<think>see </thinking> now</think>cats", "cats"),
        ("[THINK]a[/THINK]cats", "cats"),
        ("◁think▷a◁/think▷cats", "cats"),
        ("the tag is opened by the template\n</think>\n\ncats", "cats"),
        ("opened by the template</think>\ncats", "cats"),
        ("cats\n<think>are they?</think>", "cats"),
        ("<think>cut off", None),
        ("cats\n<think>cut off", None),
        ("</think>cats", "cats"),
        ("<think>a</think>", ""),
        ("thoughts\n</think>", ""),
        # the tags themselves, as a latent on them is described
        ("the token <think>", "the token <think>"),
        ("the closing tag </think>", "the closing tag </think>"),
        ("text in <think>…</think> tags", "text in <think>…</think> tags"),
        (" cats \n", " cats \n"),
    ],
)
def test_what_is_said(text: str, said: str | None) -> None:
    assert spoken(text) == said


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3), st.sampled_from(TAGS))
def test_thoughts_in_front_are_no_part_of_it(answer: str, thoughts: list[str], tag: str) -> None:
    blocks = "".join(f"<{tag}>{thought}</{tag}>" for thought in thoughts)
    assert spoken(blocks + answer) == answer.strip()
    assert spoken(f"{blocks}<{tag}>{answer}") is None


@given(st.text(st.sampled_from("<>/thinkTHINK[] \n◁▷ab"), max_size=60))
def test_any_text_is_read_and_once_is_enough(text: str) -> None:
    said = spoken(text)
    assert said is None or len(said) <= len(text)


def test_many_tags_take_no_longer_than_the_text() -> None:
    spoken("<think>\n" * 100_000)
    spoken("a <think> " * 100_000)
    spoken("</think>\n" * 100_000)
