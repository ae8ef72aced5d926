"""Top contexts and the fair sample of the others."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sae_repro.evaluate import contexts
from sae_repro.evaluate.codes import Code, Codes, code_of
from sae_repro.evaluate.contexts import Best, collect
from sae_repro.evaluate.quantiles import BINS, bin_of, quantile_edges
from sae_repro.params import Evaluate
from sae_repro.readers.documents import TokenDocuments

SETTINGS = Evaluate(top_contexts=3, quantiles=4, contexts_per_quantile=2)
D = 3


def stream(x: np.ndarray, size: int, order: np.ndarray) -> Codes:
    index = np.stack([order // 7, order % 7, order * 0], axis=1).astype(np.int32)

    def codes() -> Iterator[Code]:
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            yield code_of(torch.from_numpy(x[order[part]]), index[part])

    return codes


def histogram(x: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(bin_of(c[c > 0]), minlength=BINS) for c in x.T])


@given(st.integers(0, 1000), st.integers(1, 200), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_the_choice_does_not_depend_on_batches_or_order(seed: int, size: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    # few distinct values: ties everywhere
    x = rng.integers(-2, 4, (n, D)).astype(np.float32)
    whole = collect(stream(x, n, np.arange(n)), histogram(x), SETTINGS, 5)
    cut = collect(stream(x, size, rng.permutation(n)), histogram(x), SETTINGS, 5)
    for a, b in zip(whole, cut, strict=True):
        for mine, other in zip(a.entries(), b.entries(), strict=True):
            assert np.array_equal(mine, other)


def test_top_is_the_largest_and_samples_fall_into_their_quantile() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, D)).astype(np.float32)
    top, sample = collect(stream(x, 64, np.arange(500)), histogram(x), SETTINGS, 0)
    latent, rank, document, position, value = top.entries()
    for k in range(D):
        best = np.sort(x[:, k])[::-1][:3]
        assert np.array_equal(value[latent == k], best.astype(np.float64))
        assert rank[latent == k].tolist() == [0, 1, 2]
        assert np.array_equal(x[document * 7 + position, latent], value.astype(np.float32))
    edges = quantile_edges(histogram(x), 4)
    group, _, _, _, value = sample.entries()
    assert np.bincount(group).tolist() == [2] * 4 * D
    k, quantile = np.divmod(group, 4)
    assert np.array_equal((value[:, None] >= edges[k]).sum(1), quantile)


def test_a_quantile_whose_draws_are_unlikely_is_sampled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.random.default_rng(1).integers(-2, 9, (300, D)).astype(np.float32)
    codes = stream(x, 64, np.arange(300))
    _, usual = collect(codes, histogram(x), SETTINGS, 0)
    for bound in (0.0, 0.02, 0.1):
        monkeypatch.setattr(contexts, "likely_bound", lambda n, m, b=bound: np.full(len(n), b))
        _, sample = collect(codes, histogram(x), SETTINGS, 0)
        for mine, other in zip(usual.entries(), sample.entries(), strict=True):
            assert np.array_equal(mine, other)


def test_the_sample_is_uniform_within_a_quantile() -> None:
    """Over many seeds every entry is drawn about equally often, whatever its value or place."""
    x = np.linspace(1, 1.05, 40, dtype=np.float32)[:, None] * np.ones((1, D), dtype=np.float32)
    one = Evaluate(top_contexts=1, quantiles=2, contexts_per_quantile=4)
    drawn = np.zeros(40)
    for seed in range(400):
        _, sample = collect(stream(x, 9, np.arange(40)), histogram(x), one, seed)
        group, _, document, position, _ = sample.entries()
        assert set(group.tolist()) <= {0, 1, 2, 3, 4, 5}
        np.add.at(drawn, document * 7 + position, 1)
    assert drawn.min() > 0.5 * drawn.mean()
    assert drawn.max() < 1.6 * drawn.mean()


def test_best_keeps_the_least_of_each_group() -> None:
    best = Best(2, 2)
    for key in (5.0, 3.0, 4.0, 3.0):
        one = np.array([key])
        best.add(np.array([1]), one, np.array([int(10 - key)]), np.array([0]), one)
    group, rank, _, _, value = best.entries()
    assert group.tolist() == [1, 1]
    assert rank.tolist() == [0, 1]
    assert value.tolist() == [3.0, 3.0]


def corpus_of(tokenizer: Tokenizer, text: str) -> TokenDocuments:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    documents = pd.DataFrame({"start": [0], "length": [len(ids)]})
    corpus = TokenDocuments(Path(), np.array(ids, dtype=np.int32), documents)
    vars(corpus)["_tokenizer"] = SimpleNamespace(backend_tokenizer=tokenizer)
    return corpus


def words() -> Tokenizer:
    """A token per word, and none for a space: pieces are joined with spaces."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate("?abc")}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def bytes_() -> Tokenizer:
    """A token per byte; the first space of a piece is lost, as in Llama's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "text"), [(words(), "a b c a ? b c"), (bytes_(), "a b  cd, e f")]
)
def test_a_context_reads_as_the_text_does(tokenizer: Tokenizer, text: str) -> None:
    corpus = corpus_of(tokenizer, text)
    places = np.arange(len(corpus.tokens))
    before, token, after = contexts._texts(corpus, places * 0, places, len(places))
    assert [a + b + c for a, b, c in zip(before, token, after, strict=True)] == [text] * len(places)
    assert "".join(token) == text
    # of a whole document: its start, and no token
    assert contexts._texts(corpus, np.array([0]), np.array([-1]), 3)[:2] == ([""], [""])


def test_pieces_of_one_character_are_decoded_each_by_itself() -> None:
    corpus = corpus_of(bytes_(), "a \N{SNOWMAN} b")
    before, token, after = contexts._texts(corpus, np.array([0, 0]), np.array([3, 6]), 2)
    assert token == ["\ufffd", "b"] and (before[1], after[1]) == ("\ufffd ", "")
    assert before[0] == "\ufffd" and after[0].startswith("\ufffd")


@pytest.mark.parametrize("kept", [contexts.KEPT, 4])
def test_texts_that_are_known_read_as_when_they_are_new(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "KEPT", kept)
    corpus = corpus_of(words(), "a b c a ? b c")
    texts = contexts.Texts(corpus, 2)
    for positions in ([3, 1, 3], [1, -1, 6], [0, 2, 4, 5], [6, 3, -1]):
        position = np.array(positions)
        fresh = contexts._texts(corpus, position * 0, position, 2)
        assert texts.of(position * 0, position) == fresh
