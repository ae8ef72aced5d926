"""Description length: a case by hand, a naive computation, independence of batches and order."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.evaluate.codes import Code, code_of
from sae_repro.evaluate.metrics.dictionary.description_length import description_length


def described(a: np.ndarray, variance: float, size: int = 10_000) -> tuple:
    """Of codes [n, k], streamed in batches of `size`."""

    def canonical() -> Iterator[Code]:
        for start in range(0, len(a), size):
            part = torch.from_numpy(a[start : start + size])
            yield code_of(part, np.zeros((len(part), 3), dtype=np.int32))

    return description_length(canonical, variance, (a > 0).sum(0), len(a), 0)


def naive(a: np.ndarray, variance: float) -> float:
    n, k = a.shape
    l0 = (a > 0).sum() / n
    step = np.sqrt(12 * 0.01 * variance / l0)

    def entropy(counts: list[int]) -> float:
        shares = np.array(counts) / sum(counts)
        return float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())

    total = 0.0
    for j in range(k):
        values = a[:, j][a[:, j] > 0].astype(np.float64)
        if not len(values):
            continue
        p = len(values) / n
        total += entropy([len(values), n - len(values)])
        total += p * entropy(list(Counter(np.floor(values / step).tolist()).values()))
    return total


def codes(n: int, k: int, density: float, seed: int, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a = (rng.random((n, k)) < density) * rng.exponential(scale, (n, k))
    return a.astype(np.float32)


def test_description_length_of_a_case_by_hand() -> None:
    """One latent fires on half of 8 tokens, in two bins equally often: 1 + ½ · 1 bits."""
    l0 = 0.5
    variance = l0 / 0.12  # a step of 1
    a = np.array([0.2, 0.7, 1.3, 1.9, 0, 0, 0, 0], dtype=np.float32)[:, None]
    frame, summary = described(a, variance)
    assert summary.metrics["description_length"] == pytest.approx(1.5)
    assert summary.metrics["description_length_firing"] == pytest.approx(1.0)
    assert summary.metrics["description_length_values"] == pytest.approx(0.5)
    assert frame["value_bins"].tolist() == [2]


@given(st.integers(2, 300), st.integers(1, 6), st.floats(0.05, 1), st.integers(0, 99),
       st.sampled_from([0.1, 1.0, 300.0]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_description_length_equals_a_naive_computation(
    n: int, k: int, density: float, seed: int, scale: float
) -> None:
    """Also where values lie beyond the table of bins."""
    a = codes(n, k, density, seed, scale)
    a[0, 0] = 0.5
    _, summary = described(a, 2.0)
    assert summary.metrics["description_length"] == pytest.approx(
        naive(a, 2.0), rel=1e-9, abs=1e-12
    )


@given(st.integers(1, 2000), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_neither_batches_nor_order_change_a_bit(size: int, seed: int) -> None:
    a = codes(1500, 7, 0.2, 0, 40.0)
    order = np.random.default_rng(seed).permutation(len(a))
    frame, summary = described(a, 1.0)
    other_frame, other = described(a[order], 1.0, size)
    assert summary == other
    assert frame.equals(other_frame)


def test_silent_latents_cost_nothing_and_the_parts_add_up() -> None:
    a = codes(600, 5, 0.2, 1)
    a[:, 2] = 0
    frame, summary = described(a, 1.0)
    assert frame.loc[2, ["firing_bits", "value_bits", "value_bins"]].tolist() == [0, 0, 0]
    m = summary.metrics
    assert m["description_length"] == pytest.approx(
        m["description_length_firing"] + m["description_length_values"]
    )
    low, high = summary.intervals["description_length"]
    assert low < m["description_length"] < high


def test_description_length_does_not_depend_on_the_scale_of_activations() -> None:
    a = codes(500, 4, 0.3, 2)
    assert described(a, 1.5)[1].metrics == described(a * 4, 1.5 * 16)[1].metrics


@pytest.mark.parametrize("variance", [0.0, 1.0])
def test_description_length_without_variance(variance: float) -> None:
    frame, summary = described(np.zeros((50, 3), dtype=np.float32), variance)
    assert set(summary.metrics.values()) == {None}
    assert len(frame) == 3
