"""Selections are exact: against sorting, with ties, zeros, NaN and any width."""

from collections.abc import Iterator

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from sae_repro.autoencoders import selection

FEW_VALUES = st.sampled_from([-1.0, -0.0, 0.0, 1e-45, 0.25, 0.5, 1.0, 3.0])


@st.composite
def scores(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """[N, K] with many ties, K of any remainder, and 1 ≤ k ≤ K."""
    n, width = draw(st.integers(1, 5)), draw(st.integers(1, 70))
    values = draw(arrays(np.float32, (n, width), elements=FEW_VALUES.map(np.float32)))
    return torch.from_numpy(values), draw(st.integers(1, width))


def largest(values: np.ndarray, k: int) -> Iterator[int]:
    """Indices of the k largest positive ones, of equal ones the first, rising."""
    order = np.argsort(-values, kind="stable")[:k]
    return iter(sorted(order[values[order] > 0].tolist()))


@settings(max_examples=120, deadline=None)
@given(scores(), st.sampled_from([0, selection.SHORT]))
def test_top_k_is_that_of_a_stable_sort(case: tuple[torch.Tensor, int], short: int) -> None:
    """Of rows that count as short, and of those that are bounded first."""
    score, k = case
    width = score.shape[1]
    expected = [n * width + i for n, row in enumerate(score.numpy()) for i in largest(row, k)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "SHORT", short)
        assert selection.top_k(score.numpy(), k).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(scores(), st.floats(0, 4))
def test_batch_top_k_is_that_of_a_stable_sort_whatever_came_before(
    case: tuple[torch.Tensor, int], scale: float
) -> None:
    score, k = case
    wanted = k * len(score)
    expected = list(largest(score.numpy().reshape(-1), wanted))
    select = selection.BatchTopK()
    # leaves a threshold behind, too high or too low
    select((score * scale).numpy(), max(1, wanted // 2))
    assert select(score.numpy(), wanted).tolist() == expected
    assert select(score.numpy(), wanted).tolist() == expected


def test_continuous_scores_take_the_fast_way() -> None:
    score = torch.randn(64, 515, generator=torch.Generator().manual_seed(0))
    for k in (1, 7, 100):
        found = selection.top_k(score.numpy(), k)
        top = score.topk(k, dim=1)
        expected = (top.indices + 515 * torch.arange(64)[:, None])[top.values > 0]
        assert found.tolist() == sorted(expected.tolist())


@pytest.mark.parametrize("select", [selection.top_k, selection.BatchTopK()])
def test_not_a_number_is_selected(select: object) -> None:
    """So that a broken weight shows in the loss."""
    score = torch.ones(3, 40)
    score[1, 7] = torch.nan
    assert 47 in select(score.numpy(), 4)  # type: ignore[operator]
    assert len(selection.above(np.full((2, 2), np.nan), 0.0).nonzero()[0]) == 4


@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(160, 128), (161, 128), (161, 129), (3, 5)])
def test_positions_are_those_of_numpy(density: float, shape: tuple[int, int]) -> None:
    """Asked eight at a time or not; of matrices in one piece, and of others."""
    mask = np.random.default_rng(0).random(shape) < density
    for each in (mask, mask.T, mask[:, 1:]):
        assert selection.positions(each).tolist() == np.flatnonzero(each).tolist()
        count = np.count_nonzero(each)
        assert selection.positions(each, count).tolist() == np.flatnonzero(each).tolist()
