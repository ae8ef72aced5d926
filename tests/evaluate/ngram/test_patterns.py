"""Word patterns of latents, on a stub whose activations are a known function of its tokens."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import SAE, Weights
from sae_repro.concepts.halves import in_fit
from sae_repro.evaluate.codes import Code, code_of
from sae_repro.evaluate.metrics.ngram import patterns as ngram
from sae_repro.evaluate.metrics.ngram.patterns import ANY, explainability_ngram
from sae_repro.evaluate.passages import Passages, last_activation

HOOK = "blocks.0.hook_resid_post"
BOS, VOCABULARY = 0, 12  # ids 1 … 11 are words
W, T = 240, 18

Reads = Callable[[np.ndarray], np.ndarray]
"""From the words up to a token, [n, ≤ T], to the latent's activation on it [n]."""


def word(tokens: np.ndarray, back: int) -> np.ndarray:
    """The token `back` places before the last one; −1 where the row has none, BOS included."""
    if tokens.shape[1] <= back:
        return np.full(len(tokens), -1)
    return tokens[:, -1 - back]


def bigram(tokens: np.ndarray) -> np.ndarray:
    return 2.0 * ((word(tokens, 1) == 5) & (word(tokens, 0) == 7))


def unigram(tokens: np.ndarray) -> np.ndarray:
    return 1.0 * (word(tokens, 0) == 3)


def skip(tokens: np.ndarray) -> np.ndarray:
    """5 ? 7, and what stands between matters a third at most."""
    hit = (word(tokens, 2) == 5) & (word(tokens, 0) == 7)
    return hit * (1 + 0.5 * (word(tokens, 1) == 2))


def anything(tokens: np.ndarray) -> np.ndarray:
    return np.ones(len(tokens))


def never(tokens: np.ndarray) -> np.ndarray:
    return np.zeros(len(tokens))


def weak_alone(tokens: np.ndarray) -> np.ndarray:
    """Fires on 4, and fully behind 6: alone it keeps 40 %, so that the 6 belongs to the pattern."""
    return (word(tokens, 0) == 4) * (0.4 + 0.6 * (word(tokens, 1) == 6))


def not_first(tokens: np.ndarray) -> np.ndarray:
    """Fires on 8, on a row's first word too weakly: which word stands before is all one."""
    return (word(tokens, 0) == 8) * np.where(word(tokens, 1) == BOS, 0.1, 1.0)


def long_ago(tokens: np.ndarray) -> np.ndarray:
    """Fires from the row's 17th word on: no suffix of 16 gets there."""
    return np.ones(len(tokens)) * (tokens.shape[1] > 17)


class Stub:
    """A language model whose activations are what `latents` read in the words so far."""

    def __init__(self, latents: list[Reads]) -> None:
        self.latents = latents
        self.rows = 0

    def run_with_cache(self, tokens: torch.Tensor, **options: Any) -> tuple[None, dict]:
        assert options == {"names_filter": [HOOK], "stop_at_layer": 1}
        assert bool((tokens[:, 0] == BOS).all())
        self.rows += len(tokens)
        return None, {HOOK: torch.from_numpy(self.activations(tokens.numpy()))}

    def activations(self, tokens: np.ndarray) -> np.ndarray:
        upto = [tokens[:, : i + 1] for i in range(tokens.shape[1])]
        activations = [[reads(part) for part in upto] for reads in self.latents]
        return np.array(activations, dtype=np.float32).transpose(2, 1, 0)


def made(latents: list[Reads], seed: int = 0) -> SimpleNamespace:
    """Rows of random words, one per document, the model, and its activations on them."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, VOCABULARY, (W, T))
    tokens[:, 0] = BOS
    length = rng.integers(6, T + 1, W)
    mask = (np.arange(T) > 0) & (np.arange(T) < length[:, None])
    row, column = np.nonzero(mask)
    index = np.stack([row, column - 1, tokens[row, column]], axis=1).astype(np.int32)
    stub = Stub(latents)
    a_nk = stub.activations(tokens)[row, column]
    passages = Passages(tokens, mask, length, np.arange(W), 1, index)
    return SimpleNamespace(stub=stub, passages=passages, a_nk=a_nk, index=index)


def explained(world: SimpleNamespace, size: int = 10**6, order: np.ndarray | None = None) -> tuple:
    rows = np.arange(len(world.index)) if order is None else order

    def canonical() -> Iterator[Code]:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield code_of(torch.from_numpy(world.a_nk[part]), world.index[part])

    # an SAE with atoms of norm 2, whose latents fire half as strongly: a is what the stub reads
    eye, zero = torch.eye(world.a_nk.shape[1]), torch.zeros(world.a_nk.shape[1])
    sae = SAE("standard", Weights(eye / 2, zero, eye * 2, zero))
    activate = last_activation(world.stub, sae, HOOK, "cpu")
    fired_k = (world.a_nk > 0).sum(axis=0)
    return explainability_ngram(
        activate, canonical, world.passages, fired_k, in_fit(0, np.arange(10_000)), 0
    )


@pytest.mark.parametrize("reads,pattern", [
    (bigram, "5 7"), (unigram, "3"), (skip, "5 * 7"),
])  # fmt: skip
def test_latent_that_fires_on_one_pattern_is_fully_explained(reads: Reads, pattern: str) -> None:
    frame, summary = explained(made([reads]))
    assert frame["patterns"].tolist() == [pattern]
    assert frame["fired"][0] > 5
    assert summary.metrics == {
        "explainability_ngram_precision": 1.0, "explainability_ngram_recall": 1.0,
    }  # fmt: skip


def test_a_suffix_must_keep_half_of_the_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "CONTEXTS", 3)  # the next ones are weak, and 4 alone
    frame, _ = explained(made([weak_alone]))
    assert frame["patterns"][0] == "6 4"
    assert frame["precision"][0] == 1.0
    assert 0 < frame["recall"][0] < 0.5


def test_a_word_that_only_has_to_be_there_becomes_a_wildcard() -> None:
    world = made([not_first])
    frame, _ = explained(world)
    assert frame["patterns"][0] == "* 8"
    assert frame["precision"][0] == 1.0
    # an 8 behind the BOS has no word before it
    first = (world.index[:, 1] == 0) & (world.index[:, 2] == 8)
    test = ~in_fit(0, world.index[:, 0])
    assert frame["fired"][0] - frame["both"][0] == (first & test).sum() > 0


def test_the_trivial_pattern_is_dropped_and_counted() -> None:
    frame, summary = explained(made([anything, unigram]))
    assert frame["n_patterns"].tolist() == [0, 1]
    assert frame["n_trivial"].tolist() == [1, 0]
    assert np.isnan(frame["precision"][0])
    assert frame["recall"][0] == 0.0
    assert summary.counts["ngram_patterns_trivial"] == 1
    assert summary.counts["ngram_latents_with_precision"] == 1
    assert summary.counts["ngram_latents_with_recall"] == 2
    assert summary.metrics["explainability_ngram_recall"] == 0.5


def test_a_context_longer_than_a_pattern_may_be_is_counted() -> None:
    frame, summary = explained(made([long_ago]))
    assert frame["n_too_long"][0] == frame["fit_contexts"][0] > 3
    assert frame["n_patterns"][0] == 0
    assert summary.counts["ngram_contexts_too_long"] == frame["n_too_long"][0]


def test_a_suffix_never_reaches_the_bos() -> None:
    """Where stored activations exceed what the model gives now, no suffix is enough."""

    def first_words(tokens: np.ndarray) -> np.ndarray:
        return (word(tokens, 1) == BOS) * (1.0 + 3 * (word(tokens, 2) == BOS))

    world = made([first_words])
    world.a_nk *= 3
    frame, _ = explained(world)
    assert frame["n_too_long"][0] == frame["fit_contexts"][0] > 3


def test_patterns_come_from_other_documents_than_they_are_tried_on() -> None:
    """A latent that fires in the test half alone teaches nothing; in the fit half alone, one that
    is tried on words it never fires on."""
    world = made([unigram, unigram])
    fit = in_fit(0, world.index[:, 0])
    world.a_nk[fit, 0] = 0
    world.a_nk[~fit, 1] = 0
    frame, summary = explained(world)
    assert frame["fit_contexts"].tolist() == [0, ngram.CONTEXTS]
    assert frame["n_patterns"].tolist() == [0, 1]
    assert frame["predicted"][1] > 0
    assert frame["precision"][1] == 0.0
    assert frame["recall"].isna().all()
    assert summary.metrics["explainability_ngram_recall"] is None
    assert summary.counts["ngram_latents_with_recall"] == 0


def test_only_latents_that_fire_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "LATENTS", 3)
    frame, _ = explained(made([never, unigram, bigram, never, skip, anything]))
    assert len(frame) == 3
    assert set(frame["latent"]) < {1, 2, 4, 5}
    nothing, summary = explained(made([never]))
    assert nothing.empty
    assert set(summary.metrics.values()) == {None}
    assert summary.intervals == {}


@given(st.integers(1, 3000), st.integers(0, 99))
@settings(max_examples=6, deadline=None)
def test_neither_batches_nor_order_change_anything(size: int, seed: int) -> None:
    world = made([skip, weak_alone, not_first])
    frame, summary = explained(world)
    order = np.random.default_rng(seed).permutation(len(world.index))
    other_frame, other = explained(world, size, order)
    assert frame.equals(other_frame)
    assert summary == other


def test_forward_passes_are_batched_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, _ = explained(made([skip, not_first]))
    monkeypatch.setattr("sae_repro.evaluate.passages.ROWS", 7)
    assert explained(made([skip, not_first]))[0].equals(frame)


@given(st.lists(st.lists(st.sampled_from([ANY, 1, 2, 3]), min_size=1, max_size=4), max_size=4),
       st.integers(0, 99))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_matching_against_a_naive_search(patterns: list[list[int]], seed: int) -> None:
    tokens = np.random.default_rng(seed).integers(1, 4, (5, 7))
    tokens[:, 0] = BOS
    passages = Passages(tokens, tokens > 0, np.full(5, 7), np.arange(5), 1, np.zeros((0, 3)))
    ends = ngram._ends_with_any(passages, [tuple(p) for p in patterns])
    for row, column in np.ndindex(tokens.shape):
        words = tokens[row, 1 : column + 1].tolist()
        expected = any(
            len(p) <= len(words)
            and all(t in (ANY, w) for t, w in zip(p, words[-len(p) :], strict=True))
            for p in patterns
        )
        assert ends[row, column] == expected


@given(st.lists(st.integers(0, 6), min_size=2, max_size=8), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_substitutes_follow_the_unigram_distribution_without_the_word(
    counts: list[int], token: int
) -> None:
    others = [n for i, n in enumerate(counts) if i != token]
    total = sum(others)
    if not total:
        return
    draw = (np.arange(total) + 0.5) / total  # each of the other occurrences once
    others = ngram._other_token(np.cumsum(counts), np.full(total, token), draw)
    expected = [0 if i == token else n for i, n in enumerate(counts)]
    assert np.bincount(others, minlength=len(counts)).tolist() == expected
