"""Matched L0: one line for table and figure, and intervals that hold what was not trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sae_repro.compare.collect import Result
from sae_repro.compare.frontier import STEEPEST, frontiers, reading
from sae_repro.compare.matched import findings, matched, matched_table, pairs_table
from sae_repro.compare.report import write_findings
from sae_repro.params import Cell, Compare


def batchtopk(k: int, **choices: Any) -> Cell:
    return Cell(expansion=8, activation="batchtopk", k=k, **choices)


def read(l0: list[float], fvu: list[float], target: float) -> tuple[float, float]:
    """(FVU of the line, bound on its error in log FVU)."""
    x, y = np.log(l0), np.log(fvu)
    found = reading(x, y, target)
    return float(np.exp(found.of(x, y))), found.error


def test_the_line_is_straight_in_logarithms_and_known_at_its_cells() -> None:
    l0, fvu = [4.0, 16.0, 64.0], [0.4, 0.1, 0.025]
    assert read(l0, fvu, 8.0) == (pytest.approx(0.2), pytest.approx(0.0, abs=1e-12))
    curved = [0.4, 0.1, 0.05]
    for cell, value in zip(l0, curved, strict=True):
        assert read(l0, curved, cell) == (pytest.approx(value), pytest.approx(0.0, abs=1e-12))
    assert read(l0, curved, 8.0)[1] > 0.1


def test_a_power_law_is_read_without_an_error() -> None:
    l0 = np.array([5.0, 11.0, 17.0, 40.0])
    fvu = 3 * l0**-0.7
    value, error = read(l0.tolist(), fvu.tolist(), 25.0)
    assert value == pytest.approx(3 * 25**-0.7) and error < 1e-12


def test_nothing_is_read_far_from_cells() -> None:
    x = np.log([10.0, 20.0, 40.0])
    assert reading(x, -x, 9.0).how == "outside"
    assert reading(x, -x, 9.5).how == "at a cell"  # within a tenth: the line goes on to it
    assert reading(x, -x, 30.0).how == "between cells"
    assert reading(x, -x, 45.0).how == "outside"


def test_two_cells_are_no_frontier_but_one_at_the_target_counts() -> None:
    x = np.log([8.0, 31.0])
    assert reading(x, -x, 16.0).how == "too few cells"
    found = reading(x, -x, 32.0)
    assert (found.how, found.left, found.right) == ("at a cell", 1, 1)
    assert found.error == pytest.approx(STEEPEST * np.log(32 / 31))


LOGS = st.floats(np.log(1.3), np.log(3.0))


@given(
    st.lists(LOGS, min_size=2, max_size=5), st.floats(0.2, 1.5), st.floats(-0.3, 0.3),
    st.floats(0.0, 1.0),
)  # fmt: skip
def test_the_interval_holds_a_frontier_that_curves_one_way(
    steps: list[float], slope: float, curvature: float, part: float
) -> None:
    """Between any two of its cells, convex or concave in logarithms."""
    x = np.log(4.0) + np.concatenate([[0.0], np.cumsum(steps)])

    def log_fvu(t: Any) -> Any:
        return -slope * t + curvature * (t - x[0]) ** 2

    t = x[0] + part * (x[-1] - x[0])
    found = reading(x, log_fvu(x), float(np.exp(t)))
    assert abs(float(found.of(x, log_fvu(x))) - log_fvu(t)) <= found.error + 1e-9


@given(
    st.lists(LOGS, min_size=3, max_size=6), st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7),
    st.floats(0.0, 1.0),
)  # fmt: skip
def test_between_inner_cells_it_holds_any_convex_frontier(
    steps: list[float], bends: list[float], part: float
) -> None:
    """Also one that turns sharply somewhere: a sum of hinges."""
    x = np.concatenate([[0.0], np.cumsum(steps)])
    assume(len(x) >= 4)
    places = np.linspace(x[0], x[-1], len(bends))

    def log_fvu(t: Any) -> Any:
        return sum(b * np.maximum(0, np.asarray(t) - p) for b, p in zip(bends, places, strict=True))

    t = x[1] + part * (x[-2] - x[1])
    found = reading(x, log_fvu(x), float(np.exp(t)))
    assert abs(float(found.of(x, log_fvu(x))) - log_fvu(t)) <= found.error + 1e-9


def test_the_interval_without_a_trained_cell_holds_it(write: Callable[..., Result]) -> None:
    """matryoshka-fixed of the root study, without its cell at 16: k = 8, 24, 32 and 64 remain."""
    trained = {8: (8.016, 0.07344), 24: (24.0, 0.0398), 32: (32.01, 0.02711), 64: (64.0, 0.0019)}
    results = [
        write(f"m{k}", batchtopk(k, prefixes="fixed"), l0=l0, fvu=fvu)
        for k, (l0, fvu) in trained.items()
    ]
    row = matched_table(matched(results, [16.0], 200, 0)).iloc[0]
    assert row["reading"] == "between cells"
    assert row["fvu_low"] < 0.0555 < row["fvu_high"]


def test_a_planted_difference_is_found_and_equality_is_not(write: Callable[..., Result]) -> None:
    results = []
    for i, (choices, fvu) in enumerate(
        [({}, 0.10), ({"prefixes": "fixed"}, 0.10), ({"prefixes": "random"}, 0.12)]
    ):
        for k in (8, 16, 32):
            cell = batchtopk(k, **choices)
            results.append(write(f"{i}-{k}", cell, l0=float(k), fvu=fvu, noise=i))
    rows = matched(results, [16.0, 64.0], 400, seed=0)
    table, pairs = matched_table(rows), pairs_table(rows)
    at16 = table[table["target_l0"] == 16]
    assert at16["fvu"].tolist() == pytest.approx([0.10, 0.10, 0.12])
    assert ((at16["fvu_low"] < at16["fvu"]) & (at16["fvu"] < at16["fvu_high"])).all()
    assert table[table["target_l0"] == 64]["fvu"].isna().all()
    assert pairs["a_is"].tolist() == ["not distinguishable", "lower", "lower"]
    (sentence,) = findings(rows, pairs)
    assert sentence.endswith(
        "Not distinguishable: batchtopk without revival and matryoshka-fixed without revival."
    )
    assert sentence.index("matryoshka-fixed") < sentence.index("matryoshka-random")


@pytest.mark.parametrize("documents", [1, 2, 4, 5])
def test_a_handful_of_documents_has_no_interval_and_tells_nothing_apart(
    write: Callable[..., Result], documents: int
) -> None:
    results = []
    for i, (choices, fvu) in enumerate([({}, 0.1), ({"prefixes": "fixed"}, 0.5)]):
        for k in (8, 16, 32):
            r = write(f"{i}-{k}", batchtopk(k, **choices), l0=float(k), fvu=fvu)
            path = r.evaluated / "documents.parquet"
            pd.read_parquet(path).iloc[:documents].to_parquet(path)
            results.append(r)
    rows = matched(results, [16.0], 200, seed=0)
    table, pairs = matched_table(rows), pairs_table(rows)
    assert table["fvu"].tolist() == pytest.approx([0.1, 0.5])
    assert table["fvu_low"].isna().tolist() == [documents < 5] * 2
    assert pairs["a_is"].tolist() == ["not distinguishable" if documents < 5 else "lower"]


def test_findings_rank_what_is_read_among_what_is_not(write: Callable[..., Result]) -> None:
    results = []
    for i, (choices, fvu, at) in enumerate(
        [({}, 0.13, 16), ({"prefixes": "fixed"}, 0.1, 64), ({"prefixes": "random"}, 0.11, 16)]
    ):
        cell = batchtopk(at, **choices)
        results.append(write(f"{i}", cell, l0=float(at), fvu=fvu, noise=i))
    rows = matched(results, [16.0], 200, seed=0)
    (sentence,) = findings(rows, pairs_table(rows))
    assert "lowest first: matryoshka-random without revival 0.110 [" in sentence
    assert "matryoshka-fixed" not in sentence


def test_a_missed_target_is_named_and_nothing_is_claimed_at_it(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    """Asked for 16, reached 12: read at 12, as one of the cells of its line, and not at 16."""
    results = [
        write(f"{i}-{k}", batchtopk(k, **choices), l0=l0, fvu=fvu)
        for i, choices in enumerate(({}, {"prefixes": "fixed"}, {"prefixes": "random"}))
        for k, l0, fvu in ((4, 4.0, 0.3), (8, 8.0, 0.2), (16, 12.0 if i == 2 else 16.0, 0.1))
    ]
    results += [
        write("flat", batchtopk(8, revival="auxk"), l0=8.0, fvu=1.05),
        write("broken", batchtopk(9), status="failed"),
    ]
    settings = Compare(matched_l0=(8.0, 16.0), bootstrap=100)
    write_findings(tmp_path, results, settings, 0)
    found = (tmp_path / "findings.md").read_text()
    at16 = next(line for line in found.splitlines() if line.startswith("- FVU at L0 = 16"))
    assert "matryoshka-fixed" in at16 and "matryoshka-random" not in at16
    assert "- 2-16: L0 12, target 16 missed\n" in found
    assert "- flat: FVU 1.05: no better than the mean\n" in found
    assert "- broken: failed: the loss is not finite" in found
    write_findings(tmp_path, results[:6], settings, 0)
    assert "remarks" not in (tmp_path / "findings.md").read_text()


def test_the_bootstrap_is_paired(write: Callable[..., Result]) -> None:
    """A tiny but constant difference is seen although each value alone is known far less well."""
    results = []
    for i, fvu in enumerate((0.100, 0.101)):
        choices: dict[str, Any] = {"prefixes": "fixed"} if i else {}
        results += [write(f"{i}-{k}", batchtopk(k, **choices), l0=float(k), fvu=fvu, noise=0)
                    for k in (8, 16, 32)]  # fmt: skip
    rows = matched(results, [16.0], 400, seed=0)
    table = matched_table(rows)
    assert table["fvu_high"][0] > table["fvu_low"][1]
    assert pairs_table(rows)["a_is"].tolist() == ["lower"]


def test_no_difference_is_claimed_inside_the_error_of_a_line(write: Callable[..., Result]) -> None:
    """The same two architectures, told apart at their cells and not between curved lines."""
    results = []
    for i, scale in enumerate((1.0, 1.03)):
        choices: dict[str, Any] = {"prefixes": "fixed"} if i else {}
        for k, fvu in ((8, 0.2), (32, 0.1), (64, 0.02)):
            cell = batchtopk(k, **choices)
            results.append(write(f"{i}-{k}", cell, l0=float(k), fvu=scale * fvu, noise=0))
    pairs = pairs_table(matched(results, [16.0, 32.0], 400, seed=0))
    verdicts = dict(zip(pairs["target_l0"], pairs["a_is"], strict=True))
    assert verdicts == {16.0: "not distinguishable", 32.0: "lower"}


def test_cells_of_one_frontier_differ_in_sparsity_alone(write: Callable[..., Result]) -> None:
    results = [
        write("a", batchtopk(4), l0=4.0), write("b", batchtopk(8), l0=8.0),
        write("c", batchtopk(8, lr=1e-4), l0=8.0), write("d", batchtopk(16), l0=16.0),
    ]  # fmt: skip
    groups = {f.label: [r.name for r in f.cells] for f in frontiers(results)}
    assert groups == {
        "batchtopk without revival (lr default)": ["a", "b", "d"],
        "batchtopk without revival (lr 0.0001)": ["c"],
    }


def test_the_figure_draws_what_the_table_reads(write: Callable[..., Result]) -> None:
    values = {8: (8.2, 0.1), 16: (15.7, 0.07), 32: (30.9, 0.04)}
    results = [write(f"{k}", batchtopk(k), l0=l0, fvu=f) for k, (l0, f) in values.items()]
    (f,) = frontiers(results)
    targets = [8.0, 16.0, 20.0, 32.0]
    l0, fvu = f.drawn(targets)
    table = matched_table(matched(results, targets, 100, 0))
    drawn = np.exp(np.interp(np.log(targets), np.log(l0), np.log(fvu)))
    assert table["fvu"].tolist() == pytest.approx(drawn.tolist())
