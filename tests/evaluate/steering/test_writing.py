"""Text written with cached keys and values: the same as without, whatever stands beside it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.corpus.tokenizers import word_level
from sae_repro.evaluate.metrics.steering.writing import (
    TOGETHER,
    guided,
    reading,
    with_words,
    written,
)
from sae_repro.readers.subject import load_subject
from sae_repro.steering import continued, edited

V, D, L, T = 23, 16, 4, 5
HOOK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("subject")
    config = GPT2Config(
        vocab_size=V, n_positions=32, n_embd=D, n_layer=2, n_head=2, initializer_range=0.3,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    word_level([chr(97 + i) for i in range(V - 3)]).save_pretrained(folder)
    return load_subject(folder)


def beginnings(n: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.integers(3, V, (n, L))
    rows[:, 0] = 1
    return torch.from_numpy(rows), rng.random((n, T))


def push(x_nd: torch.Tensor) -> torch.Tensor:
    return 3 * torch.roll(x_nd, 1, dims=1)


@pytest.mark.parametrize("steered", [False, True])
def test_a_cache_writes_what_whole_passes_write(subject: Any, steered: bool) -> None:
    rows, uniform = beginnings(6)
    if not steered:
        mine = written(lambda: reading(subject), rows, uniform)
        whole = continued(subject, rows, T, temperature=1.0, uniform_nt=uniform)
    else:
        with edited(subject, HOOK, push, cached=True):
            mine = written(lambda: reading(subject), rows, uniform)
        with edited(subject, HOOK, push):
            whole = continued(subject, rows, T, temperature=1.0, uniform_nt=uniform)
    assert np.array_equal(mine, whole[:, L:].numpy())


def test_a_cached_pass_is_edited_at_its_one_position(subject: Any) -> None:
    rows, _ = beginnings(3)
    with torch.no_grad():
        with edited(subject, HOOK, push):
            whole = subject(rows)[:, -1]
        with edited(subject, HOOK, push, cached=True):
            read = reading(subject)
            read(rows[:, :-1])
            last = read(rows[:, -1:])
    torch.testing.assert_close(last, whole, rtol=1e-4, atol=1e-4)


def test_what_stands_beside_a_text_changes_no_bit_of_it(subject: Any) -> None:
    def logits(rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), edited(subject, HOOK, push, cached=True):
            read = reading(subject)
            return torch.stack([read(rows[:, :2]), read(rows[:, 2:3]), read(rows[:, 3:])])

    mine, others = beginnings(TOGETHER)[0], beginnings(TOGETHER, seed=1)[0]
    place = 37
    others[place] = mine[place]
    assert torch.equal(logits(mine)[:, place], logits(others)[:, place])


def test_few_or_many_beginnings_are_written_alike(subject: Any) -> None:
    rows, uniform = beginnings(TOGETHER + 5)
    start: Callable[[], Any] = lambda: reading(subject)  # noqa: E731
    every = written(start, rows, uniform)
    assert every.shape == (TOGETHER + 5, T)
    assert np.array_equal(written(start, rows[:7], uniform[:7]), every[:7])
    assert np.array_equal(written(start, rows[TOGETHER:], uniform[TOGETHER:]), every[TOGETHER:])


def test_guidance_goes_from_the_model_to_the_model_with_the_prompt(subject: Any) -> None:
    rows, uniform = beginnings(6)
    words = [5, 6, 7]

    def by(weight: float) -> np.ndarray:
        return written(
            lambda: guided(reading(subject), reading(subject), words, weight), rows, uniform
        )

    plain = written(lambda: reading(subject), rows, uniform)
    behind = written(lambda: reading(subject), with_words(rows, words), uniform)
    assert np.array_equal(by(0.0), plain)
    assert np.array_equal(by(1.0), behind) and not np.array_equal(plain, behind)
    with torch.no_grad():
        read = guided(reading(subject), reading(subject), words, 2.5)
        first, second = subject(rows)[:, -1], subject(with_words(rows, words))[:, -1]
        expected = first + 2.5 * (second - first)
        torch.testing.assert_close(read(rows), expected, rtol=1e-4, atol=1e-3)


def test_the_words_stand_behind_the_first_token() -> None:
    rows = torch.tensor([[1, 4, 5], [1, 6, 7]])
    assert with_words(rows, [8, 9]).tolist() == [[1, 8, 9, 4, 5], [1, 8, 9, 6, 7]]
