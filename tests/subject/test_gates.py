"""The gates: a model that knows the stories passes, each kind of ignorance fails."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.stories import lexicon
from sae_repro.stories.generator import generate, vocabulary
from sae_repro.subject.gates import THRESHOLDS, Gates, measure

IDS = {word: position for position, word in enumerate(vocabulary())}
OFFSET, BOS, SIZE = 3, 1, len(IDS) + 3
NAMES = {IDS[word] + OFFSET for name in lexicon.NAME_LISTS for word in lexicon.LISTS[name].words}
Model = Callable[[torch.Tensor], torch.Tensor]


@cache
def documents(count: int = 600) -> tuple[np.ndarray, ...]:
    stories = generate(count, seed=11)
    return tuple(np.split(stories.tokens, stories.starts[1:-1]))


def story(text: str) -> np.ndarray:
    return np.array([IDS[word] for word in text.split()])


def gates(model: Model, rows=None, **options) -> Gates:
    rows = documents() if rows is None else rows
    return measure(model, rows, **{"token_offset": OFFSET, "bos": BOS, **options})


def clairvoyant(tokens: torch.Tensor) -> torch.Tensor:
    """Sees the next token."""
    following = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
    return torch.nn.functional.one_hot(following, SIZE).float()


def with_bonus(words: Callable[[list[int]], dict[int, float]]) -> Model:
    """Clairvoyant, but `words(prefix)` adds its own logits."""

    def model(tokens: torch.Tensor) -> torch.Tensor:
        scores = clairvoyant(tokens)
        for row, ids in zip(scores, tokens.tolist(), strict=True):
            for position in range(len(ids)):
                for word, bonus in words(ids[: position + 1]).items():
                    row[position, word] += bonus
        return scores

    return model


def test_model_with_the_stories_rules_passes():
    got = gates(clairvoyant)
    assert (got.pronoun_agreement, got.name_reuse, got.quote_closing) == (1, 1, 1)
    assert min(got.n_pronoun, got.n_name, got.n_quote) > 1000
    assert got.failed() == []


def test_targets_are_those_of_the_definition():
    text = (
        "once there was a girl named Robin . she lived with dad . "
        '" look at the cow , dad ! " said Robin . where was her hat ? Robin hugged him .'
    )
    got = gates(clairvoyant, [story(text)])
    # she, her, him; the second and third Robin; one quote to close and, outside, four sentence
    # ends that something else than a quote follows, less the one that a new quote follows.
    assert (got.n_pronoun, got.n_name, got.n_quote) == (3, 2, 1 + 3)


def test_a_model_without_context_fails_all_of_them():
    frequency = np.bincount(np.concatenate(documents()) + OFFSET, minlength=SIZE)
    unigram = torch.from_numpy(np.log(frequency + 1.0))
    got = gates(lambda tokens: unigram.expand(*tokens.shape, SIZE))
    assert got.failed() == list(THRESHOLDS)


def test_a_bigram_model_fails_all_of_them():
    counts = np.zeros((SIZE, SIZE))
    for row in documents():
        np.add.at(counts, (row[:-1] + OFFSET, row[1:] + OFFSET), 1)
    table = torch.from_numpy(np.log(counts + 0.01))
    assert gates(lambda tokens: table[tokens]).failed() == list(THRESHOLDS)


@pytest.mark.parametrize("bonus", [2.0, -2.0])
def test_a_model_blind_to_open_quotes_fails(bonus):
    """Always or never a quote mark after a sentence: one side is wrong throughout."""
    ends = {IDS[mark] + OFFSET for mark in lexicon.SENTENCE_ENDS}
    quote = IDS[lexicon.QUOTE] + OFFSET
    got = gates(with_bonus(lambda ids: {quote: bonus} if ids[-1] in ends else {}))
    assert got.quote_closing == 0
    assert got.failed() == ["quote_closing"]


@pytest.mark.parametrize("which", [0, -1], ids=["first", "latest"])
def test_copying_a_name_without_its_referent_fails(which):
    def copied(ids: list[int]) -> dict[int, float]:
        seen = [token for token in ids if token in NAMES]
        return dict.fromkeys(NAMES - {seen[which]}, -2.0) if seen else {}

    got = gates(with_bonus(copied))
    assert 0.4 < got.name_reuse < THRESHOLDS["name_reuse"]
    assert got.failed() == ["name_reuse"]


def test_an_agreement_of_one_gender_fails():
    female = {IDS[word] + OFFSET: 2.0 for word in ("she", "her", "herself")}
    got = gates(with_bonus(lambda ids: female))
    assert 0.3 < got.pronoun_agreement < 0.7
    assert "pronoun_agreement" in got.failed()


def test_a_tie_between_pronouns_is_not_agreement():
    got = gates(lambda tokens: torch.zeros(*tokens.shape, SIZE))
    assert got.pronoun_agreement == 0


def test_her_must_beat_both_opposites():
    rows = [story("Lily was sad . Tom hugged her .")]
    for word in ("him", "his"):
        other = IDS[word] + OFFSET
        assert gates(with_bonus(lambda ids, o=other: {o: 2.0}), rows).pronoun_agreement == 0


def noisy(tokens: torch.Tensor) -> torch.Tensor:
    """A causal model that depends on the current token alone, and is often wrong."""
    table = np.random.default_rng(0).standard_normal((SIZE + 10, SIZE + 10))
    return torch.from_numpy(table)[tokens] + torch.nn.functional.pad(clairvoyant(tokens), (0, 10))


@settings(max_examples=15, deadline=None)
@given(batch_size=st.integers(1, 70), order=st.permutations(range(60)))
def test_neither_batches_nor_order_matter(batch_size, order):
    rows = documents()[:60]
    shuffled = [rows[i] for i in order]
    assert gates(noisy, shuffled, batch_size=batch_size) == gates(noisy, rows)


def test_padding_is_no_target():
    short, long = story("Lily was sad ."), documents()[0]
    alone = [gates(clairvoyant, [row]) for row in (short, long)]
    both = gates(clairvoyant, [short, long])
    for count in ("n_pronoun", "n_name", "n_quote"):
        assert getattr(both, count) == sum(getattr(one, count) for one in alone)


@pytest.mark.parametrize(("offset", "bos"), [(0, 0), (3, 1), (7, 2)])
def test_the_offset_moves_ids_only(offset, bos):
    seen = []

    def model(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens)
        following = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
        return torch.nn.functional.one_hot(following, len(IDS) + offset).float()

    row = story("Lily was sad . she smiled .")
    got = gates(model, [row], token_offset=offset, bos=bos)
    assert (got.pronoun_agreement, got.n_pronoun) == (1, 1)
    assert seen[0].tolist() == [[bos, *(row + offset)]]


def test_gate_without_targets_is_not_passed():
    got = gates(clairvoyant, [story("once there was a story about a cow .")])
    assert (got.n_pronoun, got.n_name, got.n_quote) == (0, 0, 0)
    assert got.failed() == list(THRESHOLDS)
    assert gates(clairvoyant, []).failed() == list(THRESHOLDS)


def test_unusable_input_is_refused():
    row = story("Lily was sad .")
    with pytest.raises(ValueError, match="empty"):
        gates(clairvoyant, [row, row[:0]])
    with pytest.raises(ValueError, match="shape"):
        gates(lambda tokens: clairvoyant(tokens)[:, :-1], [row])
    with pytest.raises(ValueError, match="finite"):
        gates(lambda tokens: clairvoyant(tokens) * float("nan"), [row])
