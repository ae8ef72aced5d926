"""The nearest atom: against scikit-learn, copies, zero rows, blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from sae_repro.evaluate.metrics.dictionary import neighbours
from sae_repro.evaluate.metrics.dictionary.neighbours import decoder_max_cosine
from sae_repro.numerics.intervals import wilson


def atoms(k: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((k, d))


@given(st.integers(2, 40), st.integers(2, 9), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_nearest_atoms_equal_scikit_learns_for_any_block_size(
    k: int, d: int, block: int, seed: int
) -> None:
    w = atoms(k, d, seed)
    expected = cosine_similarity(w)
    np.fill_diagonal(expected, -np.inf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", block)
        frame, summary = decoder_max_cosine(torch.from_numpy(w), np.ones(k), 0)
    assert frame["neighbour"].tolist() == expected.argmax(axis=1).tolist()
    assert frame["decoder_max_cosine"].to_numpy() == pytest.approx(expected.max(axis=1))
    assert summary.metrics["decoder_max_cosine"] == pytest.approx(expected.max(axis=1).mean())


def test_a_copy_is_found_at_any_scale_and_its_opposite_is_none() -> None:
    w = np.eye(6)
    w[4], w[5] = 3 * w[1], -2 * w[0]
    frame, summary = decoder_max_cosine(torch.from_numpy(w), np.ones(6), 0)
    assert frame["neighbour"].tolist()[1] == 4
    assert frame["neighbour"].tolist()[4] == 1
    assert frame["decoder_max_cosine"].tolist() == [0, 1, 0, 0, 1, 0]
    assert summary.metrics["decoder_near_copy_fraction"] == 2 / 6
    assert summary.intervals["decoder_near_copy_fraction"] == list(wilson(2, 6))


def test_latents_without_an_atom_or_dead_are_left_out_and_counted() -> None:
    w = atoms(5, 4)
    w[2] = 0
    w[3] = w[0]
    frame, summary = decoder_max_cosine(torch.from_numpy(w), np.array([3, 1, 1, 0, 2]), 0)
    assert frame["neighbour"][2] == -1
    assert np.isnan(frame["decoder_max_cosine"][2])
    assert 2 not in frame["neighbour"].tolist()
    assert frame["neighbour"][0] == 3  # dead, and still an atom
    assert summary.counts == {
        "decoder_latents": 3, "decoder_latents_dead": 1, "decoder_latents_without_neighbour": 1,
    }  # fmt: skip
    scored = frame["decoder_max_cosine"][[0, 1, 4]]
    assert summary.metrics["decoder_max_cosine"] == pytest.approx(scored.mean())


def test_zero_atom_is_no_neighbour() -> None:
    """Its cosine is not 0, which would beat every obtuse angle; it has none."""
    w = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, 0.0]])
    frame, _ = decoder_max_cosine(w, np.ones(3), 0)
    assert frame["neighbour"].tolist() == [1, 0, -1]


def test_a_lone_atom_has_no_neighbour() -> None:
    frame, summary = decoder_max_cosine(torch.ones(1, 3), np.ones(1), 0)
    assert frame["neighbour"].tolist() == [-1]
    assert summary.metrics == {"decoder_max_cosine": None, "decoder_near_copy_fraction": None}
    assert summary.intervals == {}
