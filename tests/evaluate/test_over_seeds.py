"""A cell with several seeds: mean and spread, and nothing dropped in silence."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.evaluate.over_seeds import over_seeds
from sae_repro.numerics.intervals import student, student_fraction, wilson, wilson_over_groups

K = 100


def measured(
    seed: int, fvu: float = 0.1, dead: int = 5, mono: int = 9, status: str = "ok"
) -> dict[str, Any]:
    common = {
        "key": f"key-{seed}", "status": status, "hook": "h", "d_in": 4, "d_sae": K,
        "choices": {"k": 3, "seed": seed, "seeds": None}, "activation": "topk",
        "unreached": [],
    }  # fmt: skip
    if status != "ok":
        return {**common, "reason": "the loss is not finite", "metrics": {}, "counts": {},
                "intervals": {}}  # fmt: skip
    alive = K - dead
    return {
        **common,
        "metrics": {"fvu": fvu, "kl": None, "dead_fraction_never": dead / K,
                    "monosemantic_fraction_alive": mono / alive, "monosemantic_mean": fvu},
        "counts": {"tokens": 500, "latents": K, "latents_alive": alive},
        "intervals": {
            "dead_fraction_never": list(wilson(dead, K)),
            "monosemantic_fraction_alive": list(wilson(mono, alive)),
            "monosemantic_mean": [0.0, 1.0],
        },
    }  # fmt: skip


def named(*ones: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"seed-{one['choices']['seed']}": one for one in ones}


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 50)), min_size=2, max_size=6))
@settings(deadline=None)  # the first call imports scipy
def test_mean_and_sd_are_those_over_seeds(values: list[tuple[float, int]]) -> None:
    whole = over_seeds(named(*(measured(i, *v) for i, v in enumerate(values))))
    fvu, dead = zip(*values, strict=True)
    assert whole["metrics"]["fvu"] == pytest.approx(np.mean(fvu))
    assert whole["sd"]["fvu"] == pytest.approx(np.std(fvu, ddof=1), abs=1e-12)
    assert whole["metrics"]["dead_fraction_never"] == pytest.approx(np.mean(dead) / K)
    pooled = wilson_over_groups(dead, [K] * len(dead))
    assert whole["intervals"]["dead_fraction_never"] == pytest.approx(list(pooled))
    assert whole["intervals"]["monosemantic_mean"] == pytest.approx(list(student(fvu)[1:]))
    assert whole["n"]["fvu"] == len(values) == whole["counts"]["seeds"]


@pytest.mark.parametrize("value", [0.1, -0.3, 1e-9, 7.1e8, 0.0])
def test_seeds_that_agree_have_no_spread_whatever_their_mean_is_rounded_to(value: float) -> None:
    """Of three times .1 numpy's standard deviation is 1.7e-17, of three times −.3 6.8e-17."""
    for shaken in (value, float(np.nextafter(value, np.inf))):
        ones = [measured(i, fvu=fvu) for i, fvu in enumerate((value, value, shaken))]
        assert over_seeds(named(*ones))["sd"]["fvu"] == (
            0 if value else pytest.approx(0, abs=1e-99)
        )
    apart = over_seeds(named(measured(0, fvu=1.0), measured(1, fvu=1 + 1e-12)))["sd"]["fvu"]
    assert apart == pytest.approx(1e-12 / np.sqrt(2), rel=1e-3)


def test_a_fraction_of_the_alive_is_pooled_over_the_alive_of_each_seed() -> None:
    whole = over_seeds(named(measured(0, dead=0, mono=10), measured(1, dead=60, mono=10)))
    pooled = wilson_over_groups([10, 10], [100, 40])
    assert whole["intervals"]["monosemantic_fraction_alive"] == pytest.approx(list(pooled))


def with_metric(name: str, values: list[float], counts: list[int]) -> dict[str, dict[str, Any]]:
    ones = [measured(seed) for seed in range(len(values))]
    for one, value, n in zip(ones, values, counts, strict=True):
        one["metrics"][name], one["intervals"][name] = value, [value, value]
        one["counts"]["decoder_latents"] = n
    return named(*ones)


def test_intervals_of_fractions_stay_between_0_and_1() -> None:
    """Student's t of these would end at 1.36."""
    values = [0.5, 0.9, 1.0]
    assert student(values)[2] > 1
    whole = over_seeds(with_metric("coverage", values, [9] * 3))
    assert whole["intervals"]["coverage"] == list(student_fraction(values)[1:])
    whole = over_seeds(with_metric("decoder_near_copy_fraction", values, [10, 20, 30]))
    pooled = wilson_over_groups([5, 18, 30], [10, 20, 30])
    assert whole["intervals"]["decoder_near_copy_fraction"] == list(pooled)


@pytest.mark.parametrize(
    ("value", "ends"), [(0.5, [0.45, 0.55]), (0.0, [0.0, 0.05]), (1, [0.95, 1])]
)
def test_fractions_on_which_seeds_agree_are_known_to_half_of_one(
    value: float, ends: list[float]
) -> None:
    ones = with_metric("coverage", [value] * 3, [10] * 3)
    for one in ones.values():
        one["counts"]["structure_concepts"] = 10
    assert over_seeds(ones)["intervals"]["coverage"] == pytest.approx(ends)


def test_metrics_without_bounds_keep_students_interval() -> None:
    values = [-0.1, 0.2, 0.4]
    for name in ("hole_rate", "ce_recovered_zero", "of_a_row_that_does_not_exist"):
        whole = over_seeds(with_metric(name, values, [9] * 3))
        assert whole["intervals"][name] == list(student(values)[1:])


def test_an_interval_that_the_only_finished_seed_lacks_is_blank() -> None:
    ones = [measured(0), measured(1, status="failed"), measured(2)]
    ones[2]["metrics"]["monosemantic_mean"] = None
    del ones[0]["intervals"]["monosemantic_mean"]
    assert "monosemantic_mean" not in over_seeds(named(*ones))["intervals"]


def test_counts_on_which_seeds_agree_stand_and_the_rest_is_kept_seed_by_seed() -> None:
    whole = over_seeds(named(measured(0, dead=5), measured(1, dead=6)))
    assert whole["counts"] == {"tokens": 500, "latents": K, "seeds": 2, "seeds_failed": 0}
    alive = [one["counts"]["latents_alive"] for one in whole["seeds"].values()]
    assert alive == [95, 94]
    assert whole["choices"] == {"k": 3}


def test_unmeasured_metrics_stay_unmeasured() -> None:
    whole = over_seeds(named(measured(0), measured(1)))
    assert (whole["metrics"]["kl"], whole["sd"]["kl"], whole["n"]["kl"]) == (None, None, 0)


def test_a_failed_seed_is_counted_and_named() -> None:
    whole = over_seeds(named(measured(0, fvu=0.2), measured(1, status="failed")))
    assert whole["status"] == "ok"
    assert whole["counts"]["seeds_failed"] == 1
    assert whole["reason"] == "seed-1: the loss is not finite"
    assert (whole["metrics"]["fvu"], whole["sd"]["fvu"]) == (0.2, None)
    assert whole["intervals"]["dead_fraction_never"] == list(wilson(5, K))


def test_a_cell_of_which_every_seed_failed_has_failed() -> None:
    whole = over_seeds(named(measured(0, status="failed"), measured(1, status="failed")))
    assert (whole["status"], whole["metrics"], whole["intervals"]) == ("failed", {}, {})
    assert whole["reason"].count("the loss is not finite") == 2
