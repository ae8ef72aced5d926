"""Worlds of spec files: ranks, signs and predictors from made-up trials."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sae_repro.compare.control_ranking import (
    overall,
    predictions,
    ranking,
    signs,
    write_ranking,
)
from sae_repro.compare.tables import number
from sae_repro.metrics import METRICS
from sae_repro.numerics.random import generator

from .results import result

METHODS = {
    "vanilla": "relu", "topk": "topk", "batchtopk": "batchtopk", "jumprelu": "jumprelu",
    "gated": "gated", "frozen-decoder": "topk frozen",
}  # fmt: skip


def trial(method: str, seed: int, mcc: float, **values: Any) -> dict[str, Any]:
    """A row of trials.csv."""
    return {
        "world": "big", "recipe": method, "seed": seed, "status": "ok", "target_l0": 4.0,
        "method": method, "architecture": METHODS[method], "width": 64, "l0_multiple": 1.0,
        "mcc": mcc, **values,
    }  # fmt: skip


def frame(mcc: dict[str, list[float]], **values: Any) -> pd.DataFrame:
    """Trials of the mcc of each method by seed."""
    return pd.DataFrame(
        [trial(m, seed, v, **values) for m, of in mcc.items() for seed, v in enumerate(of)]
    )


THREE = frame({"vanilla": [0.5, 0.7, 0.6], "topk": [0.6, 0.8, 0.5], "gated": [0.1, 0.2, 0.3]})
"""Ranks 2, 2, 1; 1, 1, 2; and 3 of every seed."""


def test_ranks_are_by_the_truth_within_a_seed_with_students_interval() -> None:
    table = ranking(THREE).set_index("recipe")
    assert table["rank"].to_dict() == pytest.approx({"vanilla": 5 / 3, "topk": 4 / 3, "gated": 3})
    half = stats.t.ppf(0.975, 2) * np.std([2, 2, 1], ddof=1) / np.sqrt(3)
    assert half > 5 / 3 - 1  # and so cut at the first and the last place
    assert table.loc["vanilla", ["rank_low", "rank_high"]].tolist() == [1, 3]
    assert table.loc["gated", ["rank_low", "rank_high"]].tolist() == [3, 3]
    many = frame({"vanilla": [0.5] * 30, "topk": [0.6] * 29 + [0.4], "gated": [0.1] * 30})
    row = ranking(many).set_index("recipe").loc["topk"]
    low, high = stats.t.interval(0.95, 29, loc=31 / 30, scale=stats.sem([1] * 29 + [2]))
    assert row["rank_low"] == max(low, 1) and row["rank_high"] == pytest.approx(high)


def test_a_failed_trial_has_no_rank_and_takes_no_place() -> None:
    trials = THREE.copy()
    trials.loc[trials["recipe"].eq("topk") & trials["seed"].eq(1), ["status", "mcc"]] = (
        "failed", np.nan,
    )  # fmt: skip
    table = ranking(trials).set_index("recipe")
    assert table["failed"].tolist() == [0, 1, 0]
    assert table.loc["vanilla", "rank"] == pytest.approx((2 + 1 + 1) / 3)
    assert table.loc["gated", "rank"] == pytest.approx((3 + 2 + 3) / 3)
    trials.loc[trials["recipe"].eq("gated"), ["status", "mcc"]] = ("failed", np.nan)
    assert np.isnan(ranking(trials).set_index("recipe").loc["gated", "rank_high"])


def test_the_order_is_over_the_worlds_that_hold_every_method() -> None:
    other = frame({"gated": [0.9] * 3, "topk": [0.1] * 3}, world="small")
    (line,) = overall(pd.concat([THREE, other]))
    assert line.startswith(
        "Mean rank by mcc of 3 methods (big): topk 1.33 [1.00, 2.77], vanilla 1.67"
    )
    assert line.endswith("gated 3.00 [3.00, 3.00].")
    assert list(overall(other)) != [] and list(overall(other[other["method"] == "topk"])) == []


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.2, "observed"), (-0.2, "reversed"), (0.0, "not distinguishable")]
)
def test_a_sign_is_a_difference_paired_over_seeds(gain: float, verdict: str) -> None:
    """Seeds differ by far more than widths do, and the pairs take that out."""
    rows = [
        trial("batchtopk", seed, 0.5, width=width, hedging=seed + noise + gain * (width == 16))
        for seed in range(3)
        for width, noise in ((16, 0.01 * (seed - 1)), (32, 0.3), (64, 0.0))
    ]
    (line,) = signs(pd.DataFrame(rows))
    assert "2505.11756" in line and f"**{verdict}**" in line and "hedging at 16 minus at 64" in line
    differences = [gain - 0.01, gain, gain + 0.01]
    low, _ = stats.t.interval(0.95, 2, loc=gain, scale=stats.sem(differences))
    assert f" [{number(float(low))}, " in line and "3 seeds" in line


def test_an_l0_is_called_too_low_and_the_projection_is_compared() -> None:
    rows = [
        trial("batchtopk", seed, mcc + 0.001 * seed * multiple, l0_multiple=multiple,
              decoder_projection=projection)
        for seed in range(3)
        for multiple, mcc, projection in
        ((0.5, 0.6, 0.3), (1.0, 0.9, 0.1), (1.5, 0.9, 0.05), (3.0, 0.95, 0.2))
    ]  # fmt: skip
    low, high, found = signs(pd.DataFrame(rows))
    assert "2508.16560" in low and "**observed** (mcc at 1 minus at 0.5: 0.301" in low
    assert "**reversed** (mcc at 1 minus at 3: -0.0520" in high
    assert "smallest at 1.5 × the world's L0, MCC largest at 3 ×" in found


def with_metric(values: dict[str, float], metric: str, **changes: Any) -> pd.DataFrame:
    """Three seeds whose mcc falls from method to method, and `metric` of each."""
    return pd.DataFrame(
        [
            trial(m, seed, 0.9 - 0.1 * i, **{metric: values[m]}, **changes)
            for seed in range(3)
            for i, m in enumerate(METHODS)
        ]
    )


HIGHER = next(m.name for m in METRICS if m.better == "higher")
RISING = {m: 0.1 * i for i, m in enumerate(METHODS)}


def test_a_metric_that_ranks_as_the_truth_has_a_correlation_of_1_and_a_flip_has_minus_1() -> None:
    falling = {m: -v for m, v in RISING.items()}
    for values, expected in ((RISING, 1), (falling, -1)):  # fvu: lower is better
        row = predictions(with_metric(values, "fvu"), [], 0).set_index("metric").loc["fvu"]
        assert row["in_worlds"] == pytest.approx(expected)
        assert row["trained"] == pytest.approx(expected)
        assert (row["in_worlds_n"], row["trained_n"], row["in_study_n"]) == (6, 5, 0)
        assert np.isnan(row["in_study"])
    higher = predictions(with_metric(falling, HIGHER), [], 0).set_index("metric").loc[HIGHER]
    assert higher["in_worlds"] == pytest.approx(1)


def test_how_hard_a_world_is_and_its_baselines_do_not_make_a_metric_predict() -> None:
    hard = with_metric({m: 5 + v for m, v in RISING.items()}, "fvu", world="hard")
    hard["mcc"] += 10  # of all rows together, fvu would rise with the truth
    easy = with_metric(RISING, "fvu")
    row = predictions(pd.concat([easy, hard]), [], 0).set_index("metric").loc["fvu"]
    assert row["in_worlds"] == pytest.approx(1) and row["in_worlds_n"] == 12
    unrelated = dict(zip(METHODS, (2.0, 4.0, 5.0, 1.0, 3.0, 9.0), strict=True))
    row = predictions(with_metric(unrelated, "fvu"), [], 0).set_index("metric").loc["fvu"]
    assert row["trained"] == pytest.approx(-0.1)  # 1 - 6 * 22 / 120
    assert row["in_worlds"] == pytest.approx(1 - 6 * 22 / 210)


def test_a_studys_own_cells_are_compared_by_architecture() -> None:
    steered = {"penalty": "l1", "lambda": 0.1}
    bandwidth = {"penalty": "l0", "lambda": 0.1, "jumprelu_bandwidth": 0.1}
    choices = (
        steered, {"activation": "topk", "k": 8}, {"activation": "batchtopk", "k": 8},
        {"activation": "jumprelu", **bandwidth}, {"activation": "gated", **steered},
    )  # fmt: skip
    cells = [
        result(f"cell-{i}", {"expansion": 8, **chosen}, {"fvu": (0.1 * i, 0.1 * i, 0.1 * i)})
        for i, chosen in enumerate(choices)
    ]
    trials = with_metric(RISING, "fvu")
    names = [cell.architecture for cell in cells]
    for method, name in zip(METHODS, names, strict=False):
        trials.loc[trials["method"] == method, "architecture"] = name
    row = predictions(trials, cells, 0).set_index("metric").loc["fvu"]
    assert (row["in_study"], row["in_study_n"]) == (pytest.approx(1), 5)
    elsewhere = frame({"gated": [0.99] * 3, "vanilla": [0.01] * 3}, world="small", fvu=0.0)
    elsewhere["architecture"] = elsewhere["method"].map({"gated": names[4], "vanilla": names[0]})
    again = predictions(pd.concat([trials, elsewhere]), cells, 0).set_index("metric").loc["fvu"]
    assert again["in_study"] == pytest.approx(1)  # a world of two methods gives them no rank
    fewer = predictions(trials, cells[:4], 0).set_index("metric").loc["fvu"]
    assert np.isnan(fewer["in_study"])


def test_intervals_of_noisy_metrics_hold_the_correlation_and_exclude_0_where_it_is_strong() -> None:
    rng = generator("predictors")
    noisy = {m: v + 0.02 * rng.standard_normal() for m, v in RISING.items()}
    worlds = [with_metric(noisy, "fvu", world=f"w{i}") for i in range(4)]
    row = predictions(pd.concat(worlds), [], 0).set_index("metric").loc["fvu"]
    assert 0 < row["in_worlds_low"] <= row["in_worlds"] <= row["in_worlds_high"] <= 1 + 1e-12


def test_tables_are_written_for_worlds_of_spec_files_alone(tmp_path: Path) -> None:
    write_ranking(tmp_path, THREE.drop(columns="method"), [], 0)
    assert list(tmp_path.iterdir()) == []
    builtin = {"world": "tree", "recipe": "topk", "seed": 0, "status": "ok", "mcc": np.nan}
    trials = pd.concat([with_metric(RISING, "fvu"), pd.DataFrame([builtin])])
    write_ranking(tmp_path, trials, [], 0)
    text = (tmp_path / "control_ranking.md").read_text()
    assert "| big     | vanilla" in text or "| big | vanilla" in text
    assert "tree" not in text.replace("trees", "") and "Mean rank by mcc of 6 methods" in text
    predictors = pd.read_csv(tmp_path / "control_predictors.csv")
    assert predictors.set_index("metric").loc["fvu", "trained"] == pytest.approx(1)
    assert len(pd.read_csv(tmp_path / "control_ranking.csv")) == 6
