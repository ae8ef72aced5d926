"""Intervals over seeds and documents hold the truth as often as they say."""

import numpy as np
import pytest

from sae_repro.numerics.seeds import Seeds, half_width, seeds_half

DOCUMENTS, RESAMPLINGS, STUDIES = 100, 100, 2000
# standard deviations of log FVU: seeds of a and of b; documents alike for all, for an architecture,
# for one SAE
CASES = {
    "seeds decide": (0.02, 0.02, 0.3, 0.03, 0.02),
    "seeds and documents": (0.01, 0.01, 0.3, 0.07, 0.03),
    "documents decide": (0.002, 0.002, 0.3, 0.1, 0.02),
    "documents, each SAE its own": (0.002, 0.002, 0.3, 0.03, 0.1),
    "seeds of a four times b's": (0.02, 0.005, 0.3, 0.05, 0.02),
}


def simulated(
    n: int, deviations: tuple[float, float, float, float, float], rng: np.random.Generator
) -> tuple[Seeds, Seeds]:
    """FVU of n seeds of two architectures, 0.050 and 0.052, in each study, and resampled."""
    shape = STUDIES, 2, n, DOCUMENTS
    seed_a, seed_b, *documents = deviations
    log = np.log([[[0.050]], [[0.052]]]) + np.array([[[seed_a]], [[seed_b]]]) * (
        rng.standard_normal((STUDIES, 2, n, 1), dtype=np.float32)
    )
    parts = ((shape[0], 1, 1, shape[3]), (shape[0], 2, 1, shape[3]), shape)
    for deviation, part in zip(documents, parts, strict=True):
        noise = rng.standard_normal(part, dtype=np.float32)
        log = log + deviation * noise - deviation**2 / 2  # of mean 1
    fvu = np.exp(log, dtype=np.float32)
    even = np.full(DOCUMENTS, 1 / DOCUMENTS)
    drawn = rng.multinomial(DOCUMENTS, even, size=RESAMPLINGS).astype(np.float32) / DOCUMENTS
    resampled = np.moveaxis(fvu @ drawn.T, -1, -2).astype(np.float64)
    values = fvu.mean(axis=-1).astype(np.float64)
    a, b = (Seeds(values[:, i], resampled[:, i]) for i in (0, 1))
    return a, b


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_of_the_intervals_of_differences_95_percent_hold_the_truth(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    held, documents_alone = {}, {}
    for name, deviations in CASES.items():
        a, b = simulated(seeds, deviations, rng)
        means = np.array([0.050, 0.052]) * np.exp(np.square(deviations[:2]) / 2)
        truth = means[0] - means[1]
        off = np.abs(a.values.mean(axis=-1) - b.values.mean(axis=-1) - truth)
        held[name] = float(np.mean(off <= half_width(a, b, documents=DOCUMENTS)))
        documents_alone[name] = float(np.mean(off <= 1.96 * (a.mean - b.mean).std(axis=-1)))
    # of 2,000 studies, one standard error is 0.5 %
    assert all(0.93 <= share <= 0.97 + 0.005 for share in held.values()), held
    assert documents_alone["seeds decide"] < 0.8


def test_of_equal_seeds_the_documents_remain_and_of_one_mean_students_t() -> None:
    rng = np.random.default_rng(0)
    resampled = rng.standard_normal((50, 1)).repeat(3, axis=1)
    still = Seeds(np.ones(3), resampled)
    assert float(seeds_half(still.values, still.values)) == 0
    assert float(half_width(still, documents=1000)) == pytest.approx(
        1.9623 * resampled[:, 0].std(ddof=1), rel=1e-3
    )
    assert float(half_width(still, still, documents=1000)) == 0  # the same documents
    t_of_3 = pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert float(seeds_half([1.0, 2.0, 3.0])) == t_of_3
    assert float(seeds_half([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])) == t_of_3
