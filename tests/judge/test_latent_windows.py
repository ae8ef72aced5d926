"""Windows that explain and windows that score: where they lie, and that no document has both."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import SAE, Weights
from sae_repro.corpus.tokenizers import SPECIAL, word_level
from sae_repro.errors import StudyError
from sae_repro.judge.held_out_tokens import HeldOutTokens, WindowTexts, held_out_tokens
from sae_repro.judge.latent_activations import activations, nearest
from sae_repro.judge.latent_windows import LatentWindows, Window, draw_windows, quantile_edges
from sae_repro.judge.prompts import built_in_prompts
from sae_repro.judge.questions import QuestionMaker
from sae_repro.judge.scores import SCORES, ScoringQuestion
from sae_repro.judge.scores.detection import LIST_LENGTH
from sae_repro.params import Judge
from sae_repro.readers.documents import TokenDocuments

SETTINGS = Judge(quantiles=3, contexts_per_quantile=2, context_tokens=3)
WORDS = [f"w{i}" for i in range(20)]
DOCUMENTS, LENGTH = 60, 15
NONE = np.zeros(DOCUMENTS * LENGTH, dtype=bool)


class Corpus(TokenDocuments):
    """Validation documents of random words; those from `copies` on repeat the first ones."""

    def __init__(self, copies: int = DOCUMENTS) -> None:
        texts = [
            np.random.default_rng(d - copies if d >= copies else d).integers(20, size=LENGTH)
            for d in range(DOCUMENTS)
        ]
        documents = pd.DataFrame(
            {"start": np.arange(DOCUMENTS) * LENGTH, "length": LENGTH, "split": "validation"}
        )
        tokens = np.concatenate(texts).astype(np.int32) + len(SPECIAL)
        super().__init__(Path("corpus"), tokens, documents)

    def tokenizer(self) -> Any:
        return word_level(WORDS)

    def content(self, document: int) -> bytes:
        return self.document(document).tobytes()


def index_of(corpus: Corpus) -> np.ndarray:
    parts = [
        np.stack([np.full(LENGTH, d), np.arange(LENGTH), corpus.document(d)], axis=1)
        for d in range(DOCUMENTS)
    ]
    return np.concatenate(parts).astype(np.int32)


def rows_in(corpus: Corpus, order: np.ndarray | None = None) -> HeldOutTokens:
    index = index_of(corpus)
    return held_out_tokens(index if order is None else index[order], corpus, 3, 0)


def values(seed: int, density: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = DOCUMENTS * LENGTH
    # few distinct values: ties across quantiles' edges
    return ((rng.random(n) < density) * rng.integers(1, 9, n)).astype(np.float32)


@given(st.integers(0, 10_000), st.sampled_from([0.003, 0.03, 0.2, 0.7]))
@settings(max_examples=40, deadline=None)
def test_windows_keep_to_their_half_quantile_and_firing(seed: int, density: float) -> None:
    rows = rows_in(Corpus())
    a, neighbour = values(seed, density), values(seed + 1, 0.1) > 0
    result = draw_windows(5, a, neighbour, rows, SETTINGS, seed)
    fires = a > 0
    if result is None:
        assert not (fires & rows.explain).any() or not (fires & ~rows.explain).any()
        return
    edges = quantile_edges(a[fires], 3)
    for window in [*result.explain, *result.positives]:
        assert window.quantile == (a[window.mark] >= edges).sum()
        assert fires[window.mark]
    assert all(rows.explain[w.centre] for w in result.explain)
    assert not any(rows.explain[w.centre] for w in result.scoring)
    for window in [*result.random, *result.hard]:
        assert not fires[rows.first[window.centre] : rows.last[window.centre]].any()
    assert all(neighbour[w.mark] for w in result.hard)
    for window in result.wrong:
        assert window.centre in [w.centre for w in result.positives]
        assert rows.first[window.centre] <= window.mark < rows.last[window.centre]
        assert not fires[window.mark]
    n = len(result.positives)
    assert len(result.random) <= n
    assert max(len(result.hard), len(result.wrong)) <= n // 2
    assert sum(result.population) == (fires & ~rows.explain).sum()
    assert [p > 0 for p in result.population] == [
        any(w.quantile == q for w in result.positives) for q in range(3)
    ]
    for window, truth in zip(result.positives, result.activations, strict=True):
        assert truth == a[rows.first[window.centre] : rows.last[window.centre]].tolist()
    for centre in range(0, len(a), 7):
        around = slice(rows.first[centre], rows.last[centre])
        assert len(set(rows.document[around])) == 1
        assert np.ptp(rows.position[around]) <= 6


def test_the_draw_does_not_depend_on_how_rows_are_stored() -> None:
    a, neighbour = values(0, 0.1), values(1, 0.1) > 0
    order = np.random.default_rng(0).permutation(len(a))
    plain, shuffled = rows_in(Corpus()), rows_in(Corpus(), order)
    assert np.array_equal(a[order][shuffled.order], a)
    result = [
        draw_windows(5, a[order][shuffled.order], neighbour, shuffled, SETTINGS, 0),
        draw_windows(5, a, neighbour, plain, SETTINGS, 0),
    ]
    assert result[0] == result[1] is not None
    assert result[0] != draw_windows(6, a, neighbour, plain, SETTINGS, 0)


def scoring_texts(result: LatentWindows, rows: HeldOutTokens, corpus: Corpus) -> set[bytes]:
    return {corpus.content(int(rows.document[w.centre])) for w in result.scoring}


def test_no_text_explains_and_scores_even_under_two_numbers() -> None:
    """Documents 30 … 59 repeat 0 … 29: by number, copies would come to lie on both sides."""
    corpus = Corpus(copies=30)
    rows = rows_in(corpus)
    for seed in range(20):
        result = draw_windows(5, values(seed, 0.2), values(seed + 1, 0.2) > 0, rows, SETTINGS, seed)
        assert result is not None
        explaining = {corpus.content(int(rows.document[w.centre])) for w in result.explain}
        assert not explaining & scoring_texts(result, rows, corpus)
        maker(rows, corpus).explain(result)
        copied = [replace(w, centre=(w.centre + 30 * LENGTH) % len(NONE)) for w in result.explain]
        with pytest.raises(StudyError, match="both explain and score"):
            maker(rows, corpus).explain(replace(result, positives=copied))
    assert len(set(rows.document[rows.explain])) == 2 * len(
        {corpus.content(d) for d in rows.document[rows.explain]}
    )


def maker(rows: HeldOutTokens, corpus: Corpus, seed: int = 0) -> QuestionMaker:
    texts = WindowTexts(rows, corpus)
    return QuestionMaker(rows, texts, None, built_in_prompts(), SETTINGS, seed)


def scoring(
    score: str, result: LatentWindows, rows: HeldOutTokens, corpus: Corpus, seed: int = 0
) -> list[ScoringQuestion]:
    row = SCORES[score]
    return row.questions(maker(rows, corpus, seed), row.prompt, result, "words")


def test_known_leaks_stop_the_stage() -> None:
    """One list, one seed: what explains would score itself. So would a neighbour in its text."""
    corpus = Corpus()
    rows = rows_in(corpus)
    result = draw_windows(5, values(0, 0.2), NONE, rows, SETTINGS, 0)
    assert result is not None
    maker(rows, corpus).explain(result)
    leaking = replace(result, positives=result.explain)
    centre = result.explain[0].centre
    beside = int(rows.first[centre]) if rows.first[centre] < centre else centre + 1
    neighbour = replace(result, random=[replace(result.explain[0], mark=beside, centre=beside)])
    for leak in (leaking, neighbour):
        with pytest.raises(StudyError, match="documents both explain and score"):
            maker(rows, corpus).explain(leak)


def test_lists_are_balanced_mixed_and_half_hard() -> None:
    corpus = Corpus()
    rows = rows_in(corpus)
    result = draw_windows(5, values(0, 0.05), values(1, 0.3) > 0, rows, SETTINGS, 0)
    assert result is not None
    n = len(result.positives)
    assert len(result.hard) == n // 2
    for score in ("detection", "fuzzing"):
        requests = scoring(score, result, rows, corpus)
        flags = [flag for one in requests for flag in one.truth]
        assert flags.count(1) == flags.count(0) == n
        assert flags not in (sorted(flags), sorted(flags)[::-1]), "the order tells nothing"
        assert all(len(one.truth) <= LIST_LENGTH for one in requests)
        other = scoring(score, result, rows, corpus, seed=1)
        assert [one.truth for one in other] != [one.truth for one in requests]
    easy = replace(result, hard=[])
    flags = [f for one in scoring("detection", easy, rows, corpus) for f in one.truth]
    assert flags.count(0) == n, "random ones stand in"


@pytest.mark.parametrize("score,hard", [("detection", "hard"), ("fuzzing", "wrong")])
def test_hard_negatives_are_those_of_the_score(
    score: str, hard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fuzzing judge that knows silent contexts alone must fail at wrongly marked ones."""
    corpus = Corpus()
    rows = rows_in(corpus)
    result = draw_windows(5, values(0, 0.05), values(1, 0.3) > 0, rows, SETTINGS, 0)
    assert result is not None
    shown: list[Window] = []
    flags = QuestionMaker.flags

    def spy(maker: Any, prompt: str, windows: list[Window], *rest: Any, **named: Any) -> Any:
        shown.extend(windows)
        return flags(maker, prompt, windows, *rest, **named)

    monkeypatch.setattr(QuestionMaker, "flags", spy)
    requests = scoring(score, result, rows, corpus)
    truth = [flag for one in requests for flag in one.truth]
    negatives = {window for window, flag in zip(shown, truth, strict=True) if not flag}
    n = len(result.positives)
    assert negatives == {*getattr(result, hard), *result.random[: n - n // 2]}
    assert {w for w, flag in zip(shown, truth, strict=True) if flag} == {*result.positives}


def test_texts_are_whole_and_marked_on_their_token() -> None:
    corpus = Corpus()
    rows = rows_in(corpus)
    words = [WORDS[i - len(SPECIAL)] for i in corpus.document(0)]
    (context,) = WindowTexts(rows, corpus).contexts([4], [5])
    assert context.before == " ".join(words[2:4]) + " "
    assert context.token == words[4]
    assert context.after == " " + " ".join(words[5:9])
    assert WindowTexts(rows, corpus).tokens(0, 2) == words[:2]


def make_sae(architecture: str) -> SAE:
    rng = torch.Generator().manual_seed(0)
    w_dec = torch.nn.functional.normalize(torch.randn(40, 6, generator=rng), dim=1)
    w_dec[7] = 0
    weights = Weights(w_dec.T.clone(), torch.randn(40, generator=rng) / 9, w_dec, torch.zeros(6))
    if architecture == "jumprelu":
        weights.threshold = torch.rand(40, generator=rng)
    if architecture == "gated":
        weights.b_mag = torch.randn(40, generator=rng) / 9
        weights.r_mag = torch.randn(40, generator=rng) / 9
    return SAE(architecture, weights, k=4 if architecture == "topk" else None)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_activations_of_a_few_latents_equal_those_among_all(architecture: str) -> None:
    sae = make_sae(architecture)
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    latents = [3, 0, 39, 7]
    result = activations(sae, x.split(70), latents).toarray()
    whole = (sae.encode(x) * sae.weights.W_dec.norm(dim=1)).numpy()[:, latents]
    assert np.allclose(result, whole, atol=1e-6)
    assert (result[:, :3] > 0).any()
    assert not result[:, 3].any(), "without an atom nothing is added"


def test_the_nearest_latent_is_alive_and_another_one() -> None:
    sae = make_sae("standard")
    alive = np.ones(40, dtype=bool)
    (first,) = nearest(sae, [3], alive)
    atoms = sae.weights.W_dec
    cosines = (atoms @ atoms[3]).clone()
    cosines[3] = -2
    assert first == int(cosines.argmax())
    alive[first] = False
    assert nearest(sae, [3], alive) != [first]
    only = np.zeros(40, dtype=bool)
    only[3] = True
    assert nearest(sae, [3], only) == [None]
