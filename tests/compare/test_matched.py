"""Matched L0: one line for table and figure, and intervals that hold what was not trained."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sae_repro.compare.collect import Result
from sae_repro.compare.frontier import STEEPEST, frontiers, reading
from sae_repro.compare.matched import matched, matched_table
from sae_repro.compare.pairs import pairs_table, write_pairs
from sae_repro.compare.report import write_verdicts
from sae_repro.params import Cell, Compare
from sae_repro.remarks import TOLERANCE


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
    assert reading(x, -x, 9.5).how == "at the edge"  # within a tenth: the line goes on to it
    assert reading(x, -x, 10.5).how == "at a cell"
    assert reading(x, -x, 30.0).how == "between cells"
    assert reading(x, -x, 45.0).how == "outside"


def test_two_cells_are_no_frontier_but_one_at_the_target_counts() -> None:
    x = np.log([8.0, 31.0])
    assert reading(x, -x, 16.0).how == "too few cells"
    found = reading(x, -x, 32.0)
    assert (found.how, found.left, found.right) == ("at a cell", 1, 1)
    assert found.error == pytest.approx(STEEPEST * np.log(32 / 31))


SEEDS = (0.999, 1.0, 1.001)
"""FVU of three seeds that agree well, by their geometric mean."""


@pytest.fixture
def write_family(write_seeds: Callable[..., Result]) -> Callable[..., list[Result]]:
    """Writes cells of an architecture, three seeds each, FVU by L0: prefixes none, fixed, random.

    Their seeds scatter as `factors` say; cells of equal `noise` scatter alike over documents.
    """

    def go(
        i: int, fvu: dict[float, float], *, noise: int = 0, factors: Sequence[float] = SEEDS
    ) -> list[Result]:
        choices: dict[str, Any] = {"prefixes": ("none", "fixed", "random")[i]} if i else {}
        return [
            write_seeds(
                f"{i}-{l0:g}", batchtopk(round(l0), seeds=list(range(len(factors))), **choices),
                [{"l0": l0, "fvu": value * f, "noise": noise} for f in factors],
            )
            for l0, value in fvu.items()
        ]  # fmt: skip

    return go


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


def test_a_planted_difference_is_found_and_equality_is_not(
    write_family: Callable[..., list[Result]],
) -> None:
    results = []
    for i, fvu in enumerate((0.10, 0.10, 0.12)):
        results += write_family(i, dict.fromkeys((8.0, 16.0, 32.0), fvu), noise=i)
    rows = matched(results, [16.0, 64.0], 400, seed=0)
    table, pairs = matched_table(rows), pairs_table(rows)
    at16 = table[table["target_l0"] == 16]
    assert at16["fvu"].tolist() == pytest.approx([0.10, 0.10, 0.12], rel=1e-5)
    assert at16["seeds"].tolist() == [3, 3, 3]
    assert at16["interval_over"].tolist() == ["seeds and documents"] * 3
    assert ((at16["fvu_low"] < at16["fvu"]) & (at16["fvu"] < at16["fvu_high"])).all()
    assert table[table["target_l0"] == 64]["fvu"].isna().all()
    assert pairs["a_is"].tolist() == ["not distinguishable", "lower", "lower"]
    assert (pairs["p_holm"] < 0.05).tolist() == [False, True, True]


def test_the_matrix_says_what_the_pairs_say(
    write_family: Callable[..., list[Result]], tmp_path: Path
) -> None:
    results = []
    for i, fvu in enumerate((0.10, 0.10, 0.12)):
        results += write_family(i, {16.0: fvu}, noise=i)
    write_pairs(tmp_path, pairs_table(matched(results, [16.0], 400, seed=0)))
    lines = (tmp_path / "matched_l0_pairs.md").read_text().splitlines()
    rows = [[part.strip() for part in line.split("|")[2:-1]] for line in lines if "|" in line]
    assert rows[2:] == [
        ["", "undecided", "lower"], ["undecided", "", "lower"], ["higher", "higher", ""],
    ]  # fmt: skip
    assert len(pd.read_csv(tmp_path / "matched_l0_pairs.csv")) == 3


def test_of_one_seed_no_difference_is_claimed(
    write: Callable[..., Result], write_family: Callable[..., list[Result]], tmp_path: Path
) -> None:
    """However far apart, and also beside what has several: values, an interval, "one seed"."""
    fvu = {8.0: 0.2, 16.0: 0.1, 32.0: 0.05}
    single = [write(f"s{k:g}", Cell(expansion=8, activation="topk", k=round(k)), l0=k, fvu=9 * v)
              for k, v in fvu.items() if v < 0.2]  # fmt: skip
    results = [*write_family(0, fvu), *write_family(1, {k: 2 * v for k, v in fvu.items()}), *single]
    rows = matched(results, [16.0], 400, seed=0)
    pairs = pairs_table(rows).set_index(["a", "b"])
    a, b, one = (m.frontier.label for m in rows)
    assert pairs["a_is"].to_dict() == {(a, b): "lower", (a, one): "one seed", (b, one): "one seed"}
    assert pairs["high"].max() < 0 and pairs.loc[(a, one), "seeds_b"] == 1
    assert pairs.loc[(a, one), "interval_over"] == "documents (one seed)"
    settings = Compare(matched_l0=(16.0,), bootstrap=100)
    write_verdicts(tmp_path, results, settings, 0)
    assert "| documents (one seed)" in (tmp_path / "matched_l0.md").read_text()
    assert "| one seed" in (tmp_path / "matched_l0_pairs.md").read_text()
    verdict = (tmp_path / "verdict.md").read_text()
    assert f"| {one} " not in verdict  # beside those of several seeds, it has no row
    write_verdicts(tmp_path, single, settings, 0)
    assert "lowest" not in (tmp_path / "findings.md").read_text()
    verdict = (tmp_path / "verdict.md").read_text()
    assert "Undecided**: no two architectures have several seeds" in verdict
    assert "**0" not in verdict


def test_seeds_that_lie_apart_hide_what_documents_show(
    write_family: Callable[..., list[Result]],
) -> None:
    """4 % between two architectures: clear with seeds 0.1 % apart, not with seeds 5 % apart."""
    for factors, verdict in ((SEEDS, "lower"), ((0.95, 1.0, 1.05), "not distinguishable")):
        results = []
        for i, fvu in enumerate((0.10, 0.104)):
            results += write_family(i, {16.0: fvu}, factors=factors)
        assert pairs_table(matched(results, [16.0], 400, 0))["a_is"].tolist() == [verdict]
        for r in results:
            shutil.rmtree(r.evaluated)
            for sae in r.members:
                shutil.rmtree(sae.trained)


def test_a_line_takes_the_cells_with_most_seeds(
    write: Callable[..., Result], write_family: Callable[..., list[Result]]
) -> None:
    """One-seed cells of a grid do not make its line one seed's; alone they are a line."""
    family = write_family(0, {8.0: 0.2, 16.0: 0.1, 32.0: 0.05})
    grid = [write(f"g{k}", batchtopk(k), l0=float(k), fvu=0.1) for k in (15, 17, 64)]
    (line,) = frontiers([*grid, *family])
    assert [r.name for r in line.cells] == [r.name for r in family]
    (line,) = frontiers(grid)
    assert len(line.cells) == 3
    assert len(frontiers([*grid, *family[:2]])) == 2


def test_a_seed_that_failed_takes_none_of_the_others(write_seeds: Callable[..., Result]) -> None:
    ok = [{"l0": 16.0, "fvu": f} for f in (0.1, 0.101, 0.102)]
    failed = {"status": "failed"}
    fixed = batchtopk(16, seeds=[0, 1], prefixes="fixed")
    results = [
        write_seeds("a", batchtopk(16, seeds=[0, 1, 2]), ok),
        write_seeds("b", batchtopk(17, seeds=[0, 1, 2]), [failed, *ok[1:]]),
        write_seeds("c", fixed, [failed, ok[0]]),
    ]  # fmt: skip
    both, one = matched(results, [16.0], 100, 0)
    assert (both.seeds, one.seeds, one.over) == (2, 1, "documents (one seed)")


@given(
    ends=st.tuples(st.floats(7.0, 9.0), st.floats(14.4, 17.6), st.floats(28.0, 36.0)),
    moves=st.tuples(*[st.floats(-1e-3, 1e-3)] * 3),
    target=st.sampled_from([8.0, 16.0, 32.0]),
)
def test_rounding_brings_no_family_and_takes_none(
    ends: tuple[float, ...], moves: tuple[float, ...], target: float
) -> None:
    """Whether there is a value turns at one rim, 10 % off the nearest cell, and nowhere else.

    That is where a cell is said to have missed its target. Nor does the value jump.
    """
    l0 = np.array(ends)
    rim = np.min(np.abs(np.abs(l0 / target - 1) - TOLERANCE))
    assume(rim > 2e-3)
    x, y = np.log(l0), np.log(0.1) - 0.7 * np.log(l0 / 16)
    before, after = reading(x, y, target), reading(x + np.log1p(moves), y, target)
    assert before.readable == after.readable
    if before.readable:
        moved = float(after.of(x + np.log1p(moves), y)) - float(before.of(x, y))
        assert abs(moved) < 3e-3


@pytest.mark.parametrize("end", [11.76, 11.99, 12.0, 12.01])
@pytest.mark.parametrize("lower", [False, True])
def test_a_range_that_ends_just_before_a_target_is_read_at_its_edge(
    end: float, lower: bool, write_family: Callable[..., list[Result]]
) -> None:
    end = 144 / end if lower else end
    others = (24.0, 48.0) if lower else (3.0, 6.0)
    results = write_family(0, {k: k**-0.7 for k in sorted((*others, end))})
    row = matched_table(matched(results, [12.0], 100, 0)).iloc[0]
    outside = end > 12 if lower else end < 12
    assert row["reading"] == ("at the edge" if outside else "at a cell")
    assert row["fvu"] == pytest.approx(12**-0.7, rel=1e-4)


@pytest.mark.parametrize("documents", [1, 2, 4, 5])
def test_a_handful_of_documents_has_no_interval_and_tells_nothing_apart(
    write_family: Callable[..., list[Result]], documents: int
) -> None:
    results = []
    for i, fvu in enumerate((0.1, 0.5)):
        results += write_family(i, {16.0: fvu})
    for path in {sae.evaluated / "documents.parquet" for r in results for sae in r.saes}:
        pd.read_parquet(path).iloc[:documents].to_parquet(path)
    rows = matched(results, [16.0], 200, seed=0)
    table, pairs = matched_table(rows), pairs_table(rows)
    assert table["fvu"].tolist() == pytest.approx([0.1, 0.5], rel=1e-5)
    assert table["fvu_low"].isna().tolist() == [documents < 5] * 2
    assert pairs["a_is"].tolist() == ["not distinguishable" if documents < 5 else "lower"]


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
    write_verdicts(tmp_path, results, settings, 0)
    table = pd.read_csv(tmp_path / "matched_l0.csv").query("target_l0 == 16 and fvu > 0")
    assert [name.split()[0] for name in table["architecture"]] == ["batchtopk", "matryoshka-fixed"]
    found = (tmp_path / "findings.md").read_text()
    assert "3 cells with remarks: 2-16 (L0 12, target 16 missed)" in found
    assert "flat (FVU 1.05: no better than the mean)" in found
    assert "broken (failed: the loss is not finite" in found
    write_verdicts(tmp_path, results[:6], settings, 0)
    assert "remarks" not in (tmp_path / "findings.md").read_text()


def test_the_documents_are_paired(write_family: Callable[..., list[Result]]) -> None:
    """A tiny but constant difference is seen although each value alone is known far less well."""
    results = []
    for i, fvu in enumerate((0.100, 0.101)):
        results += write_family(i, {16.0: fvu})
    rows = matched(results, [16.0], 400, seed=0)
    table = matched_table(rows)
    assert table["fvu_high"][0] > table["fvu_low"][1]
    assert pairs_table(rows)["a_is"].tolist() == ["lower"]


def test_no_difference_is_claimed_inside_the_error_of_a_line(
    write_family: Callable[..., list[Result]],
) -> None:
    """The same two architectures, told apart at their cells and not between curved lines."""
    results = []
    for i, scale in enumerate((1.0, 1.03)):
        results += write_family(i, {8.0: scale * 0.2, 32.0: scale * 0.1, 64.0: scale * 0.02})
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


def test_the_figure_draws_what_the_table_reads(write_family: Callable[..., list[Result]]) -> None:
    results = write_family(0, {8.2: 0.1, 15.7: 0.07, 30.9: 0.04}, factors=(0.9, 1.0, 1.2))
    (f,) = frontiers(results)
    targets = [8.0, 16.0, 20.0, 32.0]
    l0, fvu = f.drawn(targets)
    table = matched_table(matched(results, targets, 100, 0))
    drawn = np.exp(np.interp(np.log(targets), np.log(l0), np.log(fvu)))
    assert table["fvu"].tolist() == pytest.approx(drawn.tolist())
