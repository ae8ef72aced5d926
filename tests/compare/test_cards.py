"""Metric cards on planted numbers: what separates, what is noise, what is a copy of FVU."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.cards import SEPARATES, USELESS, Card, cards, flagged_metrics
from sae_repro.compare.cards_table import write_cards
from sae_repro.compare.collect import Result
from sae_repro.compare.report import write_metrics
from sae_repro.evaluate.over_seeds import over_seeds
from sae_repro.numerics.intervals import Z_95
from sae_repro.params import Cell

D, HOOK = 64, "blocks.1.hook_resid_post"
SD = 0.02
"""Of every metric under re-sampling and over seeds."""
Numbers = dict[str, float]


def cell(k: int = 16, expansion: float = 8, **choices: Any) -> Cell:
    return Cell(expansion=expansion, activation="topk", k=k, **choices)


def result(
    name: str, made: Cell, values: Sequence[Numbers], folder: Path = Path(), *, sd: float = SD
) -> Result:
    """A cell with an SAE for each of `values`, each metric's interval ± 1.96 `sd` wide."""
    measured: dict[str, Any] = {}
    for n, numbers in enumerate(values):
        measured[f"seed-{n}"] = {
            "key": "", "status": "ok", "hook": made.hook or HOOK, "d_in": D,
            "d_sae": made.width(D), "activation": "topk", "unreached": [], "choices": {},
            "metrics": numbers, "counts": {},
            "intervals": {m: [v - Z_95 * sd, v + Z_95 * sd] for m, v in numbers.items()},
        }  # fmt: skip
    whole = over_seeds(measured) if len(values) > 1 else measured["seed-0"]
    return Result(name, made, whole, folder / "train" / name, folder / "evaluate" / name)


def study(rng: np.random.Generator, seeds: int = 3) -> list[Result]:
    """Trained cells with a good metric, a useless one and a copy of FVU; and three controls."""

    def numbers(l0: float, fvu: float, good: float, failure: float) -> Numbers:
        return {
            "l0": l0,
            "fvu": fvu,
            "coverage": good + SD * rng.standard_normal(),
            "recall_at_p80_mean": 0.4 + SD * rng.standard_normal(),  # useless
            "mean_max_correlation_30": 1 - fvu**0.5,  # a copy
            "hole_rate": failure,
        }

    trained = [
        result(
            f"topk-x{x}-k16",
            cell(16, x, seeds=tuple(range(seeds)) if seeds > 1 else None),
            [
                numbers(16, 0.05 + 0.01 * (7 * x % 11), 0.5 + 0.01 * rng.random(), 0.2)
                for _ in range(seeds)
            ],
        )
        for x in (2, 3, 4, 5, 6, 8, 10, 12, 16)
    ]
    controls = [
        result("neurons", Cell(baseline="neurons"), [numbers(D, 0.0, 0.1, 0.0)]),
        result(
            "untrained",
            Cell(baseline="untrained", activation="topk", expansion=8, k=16),
            [numbers(16, 1.2, 0.2, 0.0)],
        ),
        result("random", cell(hook=f"untrained/{HOOK}"), [numbers(16, 0.001, 0.15, 0.0)]),
    ]
    return trained + controls


@pytest.fixture
def of_study() -> Mapping[str, Card]:
    return {card.name: card for card in cards(study(np.random.default_rng(0)))}


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_useless_metric_and_a_copy_are_flagged_and_real_ones_are_not(seeds: int) -> None:
    found = study(np.random.default_rng(1), seeds)
    by_name = {card.name: card for card in cards(found)}
    assert {name: card.mark for name, card in by_name.items()} == {
        "fvu": SEPARATES,
        "coverage": SEPARATES,
        "recall_at_p80_mean": USELESS,
        "mean_max_correlation_30": USELESS,  # random weights leave a lower FVU
        "hole_rate": "failure",
    }
    assert {name: card.copies for name, card in by_name.items() if card.copies} == {
        "mean_max_correlation_30": ["fvu"]
    }
    assert flagged_metrics(found) == {"recall_at_p80_mean", "mean_max_correlation_30"}


def test_a_real_metric_replaced_by_noise_is_flagged() -> None:
    found = study(np.random.default_rng(2))
    rng = np.random.default_rng(3)
    for one in found:
        for sae in [one.measured, *one.measured.get("seeds", {}).values()]:
            sae["metrics"]["coverage"] = float(rng.normal(0.3, 0.1))
    assert "coverage" in flagged_metrics(found)


def test_a_basis_and_other_activations_are_no_controls_of_reconstruction(
    of_study: Mapping[str, Card],
) -> None:
    fvu, coverage = of_study["fvu"], of_study["coverage"]
    assert (fvu.above, fvu.cells, fvu.mark) == (9, 9, SEPARATES)
    assert fvu.separation["neurons"] < 0  # it is shown, and does not count
    assert "random" not in fvu.separation
    assert set(coverage.separation) == {"neurons", "untrained", "random"}


def test_one_control_that_is_as_good_makes_a_metric_useless() -> None:
    found = study(np.random.default_rng(4))
    assert "coverage" not in flagged_metrics(found)
    found[-1].measured["metrics"]["coverage"] = 0.6
    assert "coverage" in flagged_metrics(found)


@pytest.mark.parametrize(("better", "mark"), [(7, USELESS), (8, SEPARATES)])
def test_four_fifths_of_the_cells_must_be_better(better: int, mark: str) -> None:
    """Of 9 cells 8 are enough, 7 are not."""
    found = study(np.random.default_rng(5))
    for n, one in enumerate(found[:9]):
        one.measured["metrics"]["coverage"] = 0.5 if n < better else 0.1
    (card,) = (card for card in cards(found) if card.name == "coverage")
    assert (card.above, card.cells, card.mark) == (better, 9, mark)


def test_cells_denser_than_a_basis_do_not_count() -> None:
    found = study(np.random.default_rng(6))
    found[0].measured["metrics"]["l0"] = 70.0
    assert {card.cells for card in cards(found) if card.name == "coverage"} == {8}


def test_a_control_says_nothing_of_cells_at_another_l0() -> None:
    """A cell far worse than the controls, but twice as dense; and one with too few tokens."""
    found = study(np.random.default_rng(7))
    worse = {"l0": 32.0, "fvu": 0.9, "coverage": 0.0}
    dense = result("dense", cell(32), [worse])
    assert {c.cells for c in cards([*found, dense]) if c.name == "coverage"} == {9}
    as_dense = result("untrained-32", Cell(baseline="untrained", activation="topk", expansion=8,
                                           k=32), [worse | {"coverage": 0.2}])  # fmt: skip
    (card,) = (c for c in cards([*found, dense, as_dense]) if c.name == "coverage")
    assert (card.above, card.cells) == (9, 10)


def test_noise_is_the_deviation_behind_the_interval_and_over_seeds(
    of_study: Mapping[str, Card],
) -> None:
    coverage = of_study["coverage"]
    assert coverage.noise == pytest.approx(SD)
    assert coverage.noise_seeds == pytest.approx(SD, rel=0.5)


def test_a_difference_is_in_standard_errors_of_both_sides() -> None:
    """By hand: three seeds of deviation .03, SAEs of .04 under re-sampled concepts or latents."""
    control = result("neurons", Cell(baseline="neurons"), [{"coverage": 0.1, "l0": D, "fvu": 0}])
    values = [{"coverage": 0.5 + d, "l0": 16, "fvu": 0.1} for d in (-0.03, 0, 0.03)]
    trained = result("topk", cell(seeds=(0, 1, 2)), values, sd=0.04)
    (card,) = (card for card in cards([trained, control]) if card.name == "coverage")
    expected = 0.4 / np.sqrt(0.04**2 + 0.03**2 / 3 + SD**2)
    assert card.separation["neurons"] == pytest.approx(expected)
    for one in (trained, control):
        for sae in [one.measured, *one.measured.get("seeds", {}).values()]:
            for part in ("metrics", "intervals", "sd"):
                if "coverage" in sae.get(part, {}):
                    sae[part]["monosemantic_mean"] = sae[part]["coverage"]
    (card,) = (c for c in cards([trained, control]) if c.name == "monosemantic_mean")
    expected = 0.4 / np.sqrt((0.04**2 + 0.03**2) / 3 + SD**2)  # every SAE has latents of its own
    assert card.separation["neurons"] == pytest.approx(expected)


def test_without_controls_nothing_is_flagged() -> None:
    trained = study(np.random.default_rng(7))[:9]
    assert {card.mark for card in cards(trained)} == {"no control", "failure"}
    assert flagged_metrics(trained) == set()


def test_truth_is_ranked_within_each_world() -> None:
    """Over both worlds the correlation would have the other sign."""
    f1 = [0.1, 0.2, 0.3, 0.7, 0.8, 0.9]
    trials = pd.DataFrame(
        {"world": ["hard"] * 3 + ["easy"] * 3, "f1": f1, "fvu": [0.3, 0.2, 0.1, 0.9, 0.8, 0.7]}
    )
    by_name = {card.name: card for card in cards(study(np.random.default_rng(8)), trials)}
    assert (by_name["fvu"].truth, by_name["fvu"].trials) == (pytest.approx(1.0), 6)
    assert by_name["coverage"].trials == 0


@pytest.fixture
def of_lengths(tmp_path: Path) -> Callable[[Mapping[int, float]], list[Result]]:
    """Cells that differ only in their training tokens, with the given coverage."""

    def go(coverage: Mapping[int, float]) -> list[Result]:
        found = []
        for tokens, value in coverage.items():
            one = result(f"t{tokens}", cell(), [{"coverage": value, "l0": 16.0, "fvu": 0.1}],
                         tmp_path)  # fmt: skip
            one.trained.mkdir(parents=True)
            row = json.dumps({"step": 1, "tokens": tokens})
            (one.trained / "metrics.jsonl").write_text(row + "\n")
            found.append(one)
        return found

    return go


def test_the_slope_is_per_doubling_of_the_training_tokens(
    of_lengths: Callable[[Mapping[int, float]], list[Result]],
) -> None:
    (card,) = (
        c for c in cards(of_lengths({1000: 0.3, 2000: 0.34, 4000: 0.38})) if c.name == "coverage"
    )
    assert (card.per_doubling, card.lengths) == (pytest.approx(0.04 / SD), 3)


def test_the_section_and_its_csv_hold_the_cards(tmp_path: Path) -> None:
    found = study(np.random.default_rng(0))
    control = tmp_path / "control"
    control.mkdir()
    (control / "trials.csv").write_text("\n")
    write_metrics(tmp_path, write_cards(tmp_path, found, tmp_path))
    text = (tmp_path / "METRICS.md").read_text()
    section = text[text.index("## Cards") :]
    (row,) = (line for line in section.splitlines() if line.startswith("| `recall_at_p80_mean`"))
    assert "| useless" in row and "(concepts)" in row and "not defined on the worlds" in row
    assert "Per doubling: no cells of different training length." in section
    table = pd.read_csv(tmp_path / "METRICS.csv").set_index("metric")
    assert table.loc["mean_max_correlation_30", "copy_of"] == "fvu"
    assert table.loc["coverage", "cells_above_all"] == 9
