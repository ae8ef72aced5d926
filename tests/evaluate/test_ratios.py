"""Headline metrics: ratios of sums over documents, intervals that are paired between SAEs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.evaluate.ratios import (
    FIDELITY,
    FIDELITY_UNSEEN,
    RECONSTRUCTION,
    UNSEEN,
    Columns,
    intervals,
    values,
)
from sae_repro.numerics.bootstrap import interval, sums

Arrays = dict[str, np.ndarray]


def columns(n: int, rng: np.random.Generator, *, targets: int | None = None) -> Arrays:
    """n documents, the first `targets` of them with targets for the language model."""
    tokens = rng.integers(5, 60, n)
    with_targets = np.arange(n) < (n if targets is None else targets)
    per_target = {"ce_clean": 2.0, "ce_sae": 2.3, "ce_zero": 5.0, "ce_mean": 4.0, "kl": 0.4}
    return {
        "document": np.arange(n) * 3,
        "tokens": tokens,
        "l0_sum": tokens * 12.0 + rng.standard_normal(n),
        "squared_error": tokens * rng.uniform(0.1, 0.3, n),
        "total_variance": tokens * rng.uniform(0.8, 1.2, n),
        "cosine_sum": tokens * rng.uniform(0.7, 0.9, n),
        "cosine_tokens": tokens,
        "unseen_tokens": tokens // 2,
        "unseen_squared_error": tokens * rng.uniform(0.05, 0.15, n),
        "unseen_variance": tokens * rng.uniform(0.4, 0.6, n),
        "targets": with_targets * (tokens - 1),
        "unseen_targets": with_targets * (tokens // 2),
        **{
            f"{name}_sum": with_targets * (tokens - 1) * (mean + 0.1 * rng.standard_normal(n))
            for name, mean in per_target.items()
        },
        **{
            f"unseen_{name}_sum": with_targets * (tokens // 2) * (mean + rng.random(n))
            for name, mean in per_target.items()
        },
    }


def test_ratios_equal_the_definitions() -> None:
    c = columns(40, np.random.default_rng(0))
    total = {name: column.sum() for name, column in c.items()}
    ce = {name: total[f"ce_{name}_sum"] / total["targets"] for name in
          ("clean", "sae", "zero", "mean")}  # fmt: skip
    unseen = {name: total[f"unseen_ce_{name}_sum"] for name in ("clean", "sae", "zero")}
    fvu = total["squared_error"] / total["total_variance"]
    assert values(RECONSTRUCTION | UNSEEN | FIDELITY | FIDELITY_UNSEEN, c) == pytest.approx(
        {
            "l0": total["l0_sum"] / total["tokens"],
            "fvu": fvu,
            "fvu_unseen": total["unseen_squared_error"] / total["unseen_variance"],
            "explained_variance": 1 - fvu,
            "squared_error_per_token": total["squared_error"] / total["tokens"],
            "cosine": total["cosine_sum"] / total["tokens"],
            **{f"ce_{name}": value for name, value in ce.items()},
            "ce_recovered_zero": (ce["zero"] - ce["sae"]) / (ce["zero"] - ce["clean"]),
            "ce_recovered_mean": (ce["mean"] - ce["sae"]) / (ce["mean"] - ce["clean"]),
            "kl": total["kl_sum"] / total["targets"],
            "ce_recovered_zero_unseen": (unseen["zero"] - unseen["sae"])
            / (unseen["zero"] - unseen["clean"]),
            "kl_unseen": total["unseen_kl_sum"] / total["unseen_targets"],
        }
    )


def recovered(clean: float, sae: float, baseline: float) -> float | None:
    one = {"targets": np.array([1]), "ce_clean_sum": np.array([clean]),
           "ce_sae_sum": np.array([sae]), "ce_zero_sum": np.array([baseline])}  # fmt: skip
    ratio = {"recovered": FIDELITY["ce_recovered_zero"]}
    return values(ratio, one)["recovered"]


def test_recovered_cross_entropy_is_never_clipped() -> None:
    assert recovered(1.0, 5.0, 3.0) == -1.0
    assert recovered(2.0, 1.0, 3.0) == 2.0
    assert recovered(2.0, 2.0, 9.0) == 1.0


def test_ratio_without_denominator_or_measurement_is_none() -> None:
    assert recovered(2.0, 1.0, 2.0) is None
    empty = columns(10, np.random.default_rng(0), targets=0)
    assert values(FIDELITY, empty) == dict.fromkeys(FIDELITY)


@given(st.integers(5, 60), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_every_interval_holds_its_value(n: int, seed: int) -> None:
    c = columns(n, np.random.default_rng(seed))
    all_of_them = RECONSTRUCTION | UNSEEN | FIDELITY | FIDELITY_UNSEEN
    bounds, metrics = intervals(c, 0), values(all_of_them, c)
    assert bounds.keys() == metrics.keys()
    for name, (low, high) in bounds.items():
        value = metrics[name]
        assert value is not None
        assert low <= value <= high
    fvu, explained = bounds["fvu"], bounds["explained_variance"]
    assert explained == pytest.approx([1 - fvu[1], 1 - fvu[0]])


def test_the_interval_of_fvu_has_the_width_of_the_delta_method() -> None:
    c = columns(400, np.random.default_rng(0))
    error, variance = c["squared_error"], c["total_variance"]
    fvu = error.sum() / variance.sum()
    deviation = np.sqrt(np.square(error - fvu * variance).sum()) / variance.sum()
    low, high = intervals(c, 0)["fvu"]
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.15)


def test_documents_without_targets_widen_no_interval_of_fidelity() -> None:
    """Only the first 60 of 600 documents are read by the language model."""
    rng = np.random.default_rng(0)
    few = columns(60, rng)
    many = columns(600, rng, targets=60)
    for name in (name for name in many if name.endswith(("_sum", "targets"))):
        if name not in ("l0_sum", "cosine_sum"):
            many[name][:60] = few[name]
    for name in FIDELITY | FIDELITY_UNSEEN:
        assert np.ptp(intervals(many, 0)[name]) == pytest.approx(
            np.ptp(intervals(few, 0)[name]), rel=0.2
        )


def test_two_saes_on_the_same_documents_are_resampled_alike() -> None:
    """The difference of two SAEs is known far better than either: the draw is a pair."""
    a = columns(80, np.random.default_rng(0))
    b = a | {"squared_error": a["squared_error"] + 0.01 * a["total_variance"]}
    low_a, high_a = intervals(a, 7)["fvu"]
    assert intervals(b, 7)["fvu"] == pytest.approx([low_a + 0.01, high_a + 0.01])
    assert intervals(a, 8)["fvu"] != [low_a, high_a]


def test_other_columns_do_not_change_a_draw() -> None:
    c = columns(50, np.random.default_rng(0))
    drawn = sums(np.stack([c["squared_error"], c["total_variance"]], axis=1), 3, "documents")
    bounds = interval(drawn[:, 0] / drawn[:, 1])
    assert intervals(c, 3)["fvu"] == pytest.approx(bounds)


def test_a_few_documents_have_no_interval() -> None:
    """Four are drawn again and again: one alone would have an interval of width 0."""
    rng = np.random.default_rng(0)
    few: Columns = columns(4, rng)
    assert intervals(few, 0) == {}
    some = intervals(columns(30, rng, targets=4), 0)
    assert not FIDELITY.keys() & some.keys()
    assert some.keys() == RECONSTRUCTION.keys() | UNSEEN.keys()
