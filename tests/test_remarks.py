"""A cell that missed its target or reconstructs nothing says so, and no other cell does."""

import pytest

from sae_repro.params import Cell
from sae_repro.remarks import missed, missed_on, remarks_on

TOPK = {"expansion": 4, "activation": "topk", "k": 20}
STEERED = {"expansion": 4, "penalty": "l1", "lambda": 0.01, "target_l0": 20}
UNSTEERED = {"expansion": 4, "penalty": "l1", "lambda": 0.01}


@pytest.mark.parametrize(
    ("choices", "l0", "fvu", "says"),
    [
        (TOPK, 18.0, 0.1, []),
        (TOPK, 22.0, 0.1, []),
        (TOPK, 17.9, 0.1, ["L0 17.9, target 20 missed"]),
        (STEERED, 22.1, 0.1, ["L0 22.1, target 20 missed"]),
        (STEERED, 1.12, 1.05, ["FVU 1.05: no better than the mean", "L0 1.12, target 20 missed"]),
        (UNSTEERED, 1.12, 0.1, []),
        (UNSTEERED, 1.12, 1.0, ["FVU 1: no better than the mean"]),
        ({"baseline": "untrained", **TOPK}, 1.0, 1.2, []),
        ({"baseline": "neurons"}, 64.0, 2.0, []),
        (TOPK, None, None, []),
    ],
)
def test_missed_targets_and_failures(
    choices: dict, l0: float | None, fvu: float | None, says: list[str]
) -> None:
    assert missed(Cell(**choices), {"l0": l0, "fvu": fvu}) == says


def test_a_failed_cell_has_no_metrics_and_no_remark() -> None:
    assert missed(Cell(**TOPK), {}) == []


def test_of_several_seeds_each_is_judged_and_not_their_mean() -> None:
    """L0 of 15 and 25 have the mean 20, which is the target that both missed."""
    cell = Cell(**STEERED, seeds=[0, 1, 2])
    seeds = {"seed-0": {"l0": 15.0, "fvu": 0.1}, "seed-1": {"l0": 25.0, "fvu": 0.1}, "seed-2": {}}
    measured = {
        "metrics": {"l0": 20.0, "fvu": 0.1},
        "seeds": {place: {"metrics": metrics} for place, metrics in seeds.items()},
    }
    assert missed_on(cell, measured) == [
        "seed-0: L0 15, target 20 missed",
        "seed-1: L0 25, target 20 missed",
    ]


def test_one_sae_is_judged_by_its_metrics() -> None:
    measured = {"metrics": {"l0": 10.0, "fvu": 0.1}}
    assert remarks_on(Cell(**STEERED), measured) == ["L0 10, target 20 missed"]


def test_what_never_happened_is_a_remark_beside_what_was_missed() -> None:
    never = "never resampled: resample_every 200, the last one is due by step 80 of 100"
    measured = {"metrics": {"l0": 10.0, "fvu": 0.1}, "unreached": [never]}
    assert remarks_on(Cell(**STEERED), measured) == ["L0 10, target 20 missed", never]
