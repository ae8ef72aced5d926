"""Claims: numbers as an independent computation has them, verdicts that the numbers carry."""

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from scipy import stats
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.compare.claim_data import Tables, UndecidedError, read_tables
from sae_repro.compare.claim_statistics import Measured, measure
from sae_repro.compare.claims import Entry, entries, entry_of, load_claims, write_claims
from sae_repro.compare.collect import Result
from sae_repro.compare.tables import write_cells
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.numerics.intervals import wilson
from sae_repro.params import Cell, load
from sae_repro.params.claims import Claim, Claims, matching, unknown_cells

from ..params.test_check import STUDY

ROOT = Path(__file__).resolve().parents[2]
SEEDS = {"topk-a": [1.0, 1.2, 1.1], "topk-b": [2.0, 2.3, 2.2], "topk-c": [4.0, 4.1, 4.6]}
WIDTHS = {"topk-a": 256, "topk-b": 512, "topk-c": 1024}


def tables(values: dict[str, list[float]] = SEEDS, **more: dict[str, float]) -> Tables:
    """SAEs with these values of m; K by the cell's name."""
    return Tables(
        {
            name: [
                {"cell": name, "m": v, "K": WIDTHS.get(name, 1), **more.get(name, {})} for v in row
            ]
            for name, row in values.items()
        }
    )


def statistic(kind: str, cells: list[str], **more: Any) -> Any:
    """The checked statistic of a claim."""
    raw = {"kind": kind, "cells": cells, "metric": "m", **more}
    if more.get("over") == "cells" or kind in ("rank_correlation", "share"):
        raw["because"] = "a grid"
    claim = {"quote": "x", "source": "y", "test": raw, "expected": {"above": 0}}
    return Claim.model_validate(claim).test


def test_a_mean_over_seeds_has_students_interval() -> None:
    found = measure(statistic("mean", ["topk-a"]), tables())
    low, high = stats.t.interval(0.95, 2, np.mean(SEEDS["topk-a"]), stats.sem(SEEDS["topk-a"]))
    assert (found.value, found.n, found.over) == (pytest.approx(1.1), 3, "seeds")
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_group_of_cells_is_averaged_seed_by_seed() -> None:
    found = measure(statistic("mean", ["topk-*"]), tables())
    by_seed = np.mean(list(SEEDS.values()), axis=0)
    low, high = stats.t.interval(0.95, 2, by_seed.mean(), stats.sem(by_seed))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_difference_turns_with_its_sides() -> None:
    there = measure(statistic("difference", ["topk-a"], than=["topk-b"]), tables())
    back = measure(statistic("difference", ["topk-b"], than=["topk-a"]), tables())
    assert there.value == pytest.approx(np.mean(SEEDS["topk-a"]) - np.mean(SEEDS["topk-b"]))
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    widest = stats.t.ppf(0.975, 2) * math.hypot(stats.sem(SEEDS["topk-a"]),
                                                 stats.sem(SEEDS["topk-b"]))  # fmt: skip
    assert 0 < there.high - there.value <= widest


def test_a_ratio_is_the_difference_of_logarithms() -> None:
    found = measure(statistic("ratio", ["topk-b"], than=["topk-a"]), tables())
    logs = {name: np.log(row).tolist() for name, row in SEEDS.items()}
    same = measure(statistic("difference", ["topk-b"], than=["topk-a"]), tables(logs))
    for end in ("value", "low", "high"):
        assert getattr(found, end) == pytest.approx(math.exp(getattr(same, end)))


FRACTION = "monosemantic_fraction"


def fractions(counts: dict[str, list[int]], n: int) -> Tables:
    """SAEs of n latents, so many of them monosemantic, as cells.csv and seeds.csv have them."""
    rows = {}
    for name, row in counts.items():
        ends = [wilson(count, n) for count in row]
        rows[name] = [
            {"cell": name, FRACTION: count / n, f"{FRACTION}_low": low, f"{FRACTION}_high": high}
            for count, (low, high) in zip(row, ends, strict=True)
        ]
    return Tables(rows)


def ratio(metric: str = FRACTION, expected: dict[str, float] | None = None) -> Claim:
    return Claim.model_validate(
        {"quote": "x", "source": "y", "expected": expected or {"above": 0.9},
         "test": {"kind": "ratio", "cells": ["none"], "than": ["some"], "metric": metric}}
    )  # fmt: skip


def test_a_fraction_of_none_has_a_ratio_of_0_and_an_upper_end() -> None:
    n, some = 2304, [253, 267]
    found = measure(ratio().test, fractions({"none": [0, 0], "some": some}, n))
    logs = np.log(np.array(some) / n)
    lower = math.exp(stats.t.interval(0.95, 1, logs.mean(), stats.sem(logs))[0])
    z = stats.norm.ppf(0.975)
    assert (found.value, found.low, found.n) == (0, 0, 2)
    assert found.high == pytest.approx(z**2 / (n + z**2) / lower)
    assert found.high < 0.03


@pytest.mark.parametrize(
    ("counts", "expected", "verdict"),
    [
        ({"none": [0, 0], "some": [253, 267]}, {"above": 0.9}, "refuted"),
        ({"none": [0, 0], "some": [253, 267]}, {"below": 0.5}, "reproduced"),
        ({"none": [0, 0], "some": [1, 2]}, {"above": 0.9}, "undecided"),  # .9 is in the interval
        ({"none": [0, 1], "some": [253, 267]}, {"above": 0.9}, "undecided"),
        ({"none": [253, 267], "some": [0, 0]}, {"above": 0.9}, "undecided"),
        ({"none": [0], "some": [253, 267]}, {"above": 0.9}, "undecided"),
        ({"none": [0, 0], "some": [253]}, {"above": 0.9}, "undecided"),
        ({"none": [0, 0], "some": [0, 0]}, {"above": 0.9}, "undecided"),
    ],
)
def test_a_ratio_of_none_decides_where_the_other_is_known(
    counts: dict[str, list[int]], expected: dict[str, float], verdict: str
) -> None:
    claim = ratio(expected=expected)
    assert entry_of("c", claim, fractions(counts, 2304)).verdict == verdict


def test_a_zero_without_an_interval_that_holds_there_stays_undecided() -> None:
    of = tables({"none": [0.0, 0.0], "some": [1.0, 1.1]})
    entry = entry_of("c", ratio("m"), of)
    assert entry.verdict == "undecided" and "m is not above 0 everywhere" in entry.reason
    of = Tables({name: [{"cell": name, FRACTION: v} for v in (value, value * 1.1)]
                 for name, value in (("none", 0.0), ("some", 0.1))})  # fmt: skip
    assert entry_of("c", ratio(), of).verdict == "undecided"


def test_a_slope_is_fitted_to_each_seed() -> None:
    found = measure(statistic("slope", ["topk-*"], axis="K"), tables())
    x = np.log2(list(WIDTHS.values()))
    slopes = [np.polyfit(x, [row[i] for row in SEEDS.values()], 1)[0] for i in range(3)]
    low, high = stats.t.interval(0.95, 2, np.mean(slopes), stats.sem(slopes))
    assert found.value == pytest.approx(np.mean(slopes))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    y, x = rng.integers(0, 5, 12).astype(float), rng.uniform(1, 9, 12)
    names = [f"c{i}" for i in range(12)]
    of = tables({n: [v] for n, v in zip(names, y, strict=True)},
                **{n: {"K": v} for n, v in zip(names, x, strict=True)})  # fmt: skip
    found = measure(statistic("rank_correlation", ["c*"], axis="K"), of)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic)
    half = 1.96 * math.sqrt(1.06 / 9)
    assert math.atanh(found.high) - math.atanh(found.value) == pytest.approx(half, rel=1e-3)


@given(exponent=st.floats(-2, -0.1), share=st.floats(0.01, 0.99))
def test_an_equivalent_size_is_read_between_widths(exponent: float, share: float) -> None:
    """On a curve that is straight in log K, the size is found again."""
    curve = {name: [exponent * math.log(k)] * 2 for name, k in WIDTHS.items()}
    size = 256 * 4**share
    of = tables({**curve, "other": [exponent * math.log(size)] * 2}, other={"K": 512})
    found = measure(statistic("equivalent_size", ["other"], than=["topk-*"]), of)
    assert found.value == pytest.approx(size / 512)


def test_a_size_beyond_the_widths_is_not_extrapolated() -> None:
    of = tables({**SEEDS, "other": [9.0, 9.0, 9.0]}, other={"K": 512})
    with pytest.raises(UndecidedError, match="not extrapolated"):
        measure(statistic("equivalent_size", ["other"], than=["topk-*"]), of)


def test_cells_of_a_grid_are_paired_in_order() -> None:
    a = {f"a{i}": [v] for i, v in enumerate([1.0, 2.0, 4.0, 8.0])}
    b = {f"b{i}": [v] for i, v in enumerate([0.5, 1.0, 3.5, 7.0])}
    found = measure(statistic("difference", ["a?"], than=["b?"], over="cells"), tables({**a, **b}))
    differences = [0.5, 1.0, 0.5, 1.0]
    low, high = stats.t.interval(0.95, 3, 0.75, stats.sem(differences))
    assert (found.n, found.over) == (4, "pairs of cells")
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_series_of_a_grid_differ_in_their_axis_alone() -> None:
    cells = {f"{lam}-{k}": [lam * k] for lam in (1.0, 2.0, 3.0, 4.0) for k in (2.0, 4.0)}
    places = {name: {"K": float(name.split("-")[1]), "lambda": name.split("-")[0]}
              for name in cells}  # fmt: skip
    found = measure(statistic("slope", ["*"], axis="K", over="cells"), tables(cells, **places))
    assert (found.value, found.n) == (pytest.approx(np.mean([2.0, 4.0, 6.0, 8.0])), 4)


def test_what_is_of_all_seeds_together_keeps_its_interval() -> None:
    rows = {name: {"shared": v, "shared_low": v - h, "shared_high": v + h, "seeds": 3}
            for name, v, h in (("topk-a", 0.5, 0.03), ("topk-b", 0.2, 0.04))}  # fmt: skip
    of = Tables(tables().saes, rows)
    claim = {"quote": "x", "source": "y", "expected": {"above": 0},
             "test": {"kind": "difference", "metric": "shared", "cells": ["topk-a"],
                      "than": ["topk-b"]}}  # fmt: skip
    found = measure(Claim.model_validate(claim).test, of)
    assert (found.value, found.high) == (pytest.approx(0.3), pytest.approx(0.35))


@pytest.mark.parametrize(
    "one",
    [
        statistic("mean", ["topk-a"]),
        statistic("difference", ["topk-a"], than=["topk-b"]),
        statistic("ratio", ["topk-a"], than=["topk-b"]),
        statistic("slope", ["topk-*"], axis="K"),
        statistic("equivalent_size", ["topk-b"], than=["topk-*"]),
    ],
    ids=lambda one: one.kind,
)
def test_one_seed_decides_nothing(one: Any) -> None:
    alone = tables({**SEEDS, "topk-b": [2.0], "topk-a": [1.0]})
    with pytest.raises(UndecidedError, match="one seed: topk-"):
        measure(one, alone)


def claim_above(bound: float) -> Claim:
    return Claim.model_validate(
        {"quote": "x", "source": "y", "expected": {"above": bound},
         "test": {"kind": "mean", "cells": ["c"], "metric": "m"}}
    )  # fmt: skip


@given(value=st.floats(-10, 10), half=st.floats(0, 5), bound=st.floats(-10, 10))
def test_a_verdict_is_that_of_the_whole_interval(value: float, half: float, bound: float) -> None:
    entry = Entry("c", claim_above(bound), Measured(value, value - half, value + half, 3, "seeds"))
    sides = {value + part * half > bound for part in (-1, 1)}
    verdict = {True: "reproduced", False: "refuted"}[sides.pop()] if len(sides) == 1 else None
    if bound not in (value - half, value + half):
        assert entry.verdict == (verdict or "undecided")


def test_without_an_interval_there_is_no_verdict() -> None:
    assert Entry("c", claim_above(0), None, "one seed").verdict == "undecided"
    assert Entry("c", claim_above(0), Measured(9, math.nan, math.nan, 1, "")).verdict == "undecided"


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"test": {"kind": "median"}}, "test.kind = median: allowed are 'mean'"),
    "no kind": ({"test": {"cells": ["a"]}}, "test"),
    "one seed without a why": (
        {"test": {"kind": "mean", "cells": ["a"], "metric": "m", "over": "cells"}},
        "because: takes over: cells",
    ),
    "a why for seeds": (
        {"test": {"kind": "mean", "cells": ["a"], "metric": "m", "because": "so"}},
        "because: takes over: cells",
    ),
    "two bounds": ({"expected": {"above": 0, "below": 1}}, "exactly one of above, below"),
    "no bound": ({"expected": {}}, "exactly one of above, below"),
    "a range upside down": ({"expected": {"within": [1, 0]}}, "the lower end first"),
    "nothing expected": ({"expected": None}, "every claim has it"),
    "an axis that is none": (
        {"test": {"kind": "slope", "cells": ["a"], "metric": "m", "axis": "colour"}},
        "axis = colour",
    ),
    "an unknown key": ({"colour": 3}, "colour = 3: unknown key"),
    "an interval upside down": (
        {"test": {"kind": "recorded", "value": 1, "low": 2, "high": 3, "n": 1, "origin": "x"}},
        "low ≤ value ≤ high",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name: str, tmp_path: Path) -> None:
    change, line = FAULTS[name]
    good = {"quote": "q", "source": "s", "expected": {"above": 0},
            "test": {"kind": "mean", "cells": ["a"], "metric": "m"}}  # fmt: skip
    path = tmp_path / "claims.yaml"
    YAML().dump({"claims": {"one": {**good, **change}}}, path)
    with pytest.raises(StudyError) as raised:
        load_claims(path)
    assert line in str(raised.value)
    assert all(text.startswith(f"{path}: claims.one") for text in str(raised.value).splitlines())


# A study's own ledger, from its tables as `compare` writes them


@pytest.fixture
def study(tmp_path: Path, write: Callable[..., Result], write_seeds: Callable[..., Result]) -> Path:
    """A study with four claims and its tables."""

    def seeds(fvu: float) -> list[dict[str, Any]]:
        return [{"fvu": fvu * f, "noise": n} for n, f in enumerate((0.98, 1.0, 1.02))]

    def topk(x: float) -> Cell:
        return Cell(expansion=x, activation="topk", k=8, seeds=[0, 1, 2])

    results = [
        write_seeds("narrow", topk(4), seeds(0.4)),
        write_seeds("wide", topk(8), seeds(0.2)),
        write("alone", Cell(expansion=4, penalty="l1", lambda_=0.01), fvu=0.1),
    ]
    folder = tmp_path / "reports/tables"
    folder.mkdir(parents=True)
    write_cells(folder, results, 0)
    claims = {
        "wide-is-better": claim("difference", ["wide"], {"below": 0}, than=["narrow"]),
        "wide-is-worse": claim("difference", ["wide"], {"above": 0}, than=["narrow"]),
        "size-helps": claim("slope", ["narrow", "wide"], {"below": 0}, axis="expansion"),
        "alone-is-good": claim("mean", ["alone"], {"below": 0.5}),
    }
    YAML().dump({"claims": claims}, tmp_path / "claims.yaml")
    write_claims(folder, load_claims(tmp_path / "claims.yaml"))
    pin = {"path": "claims.yaml", "sha256": sha256_file(tmp_path / "claims.yaml")}
    cells = {"narrow": {"expansion": 4, "activation": "topk", "k": 8, "seeds": [0, 1, 2]},
             "wide": {"expansion": 8, "activation": "topk", "k": 8, "seeds": [0, 1, 2]},
             "alone": {"expansion": 4, "penalty": "l1", "lambda": 0.01}}  # fmt: skip
    YAML().dump({**STUDY, "cells": cells, "compare": {"claims": pin}}, tmp_path / "params.yaml")
    return tmp_path


def claim(kind: str, cells: list[str], expected: dict[str, float], **more: Any) -> dict[str, Any]:
    return {
        "quote": "it | is so", "source": "arXiv 1", "expected": expected,
        "test": {"kind": kind, "cells": cells, "metric": "fvu", **more},
    }  # fmt: skip


def verdicts(folder: Path) -> dict[str, str]:
    with (folder / "claims.csv").open(encoding="utf-8", newline="") as file:
        return {row["claim"]: row["verdict"] for row in csv.DictReader(file)}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["claims", *arguments])
    if isinstance(result.exception, StudyError):
        return 2, str(result.exception)
    return result.exit_code, result.output


EXPECTED = {
    "wide-is-better": "reproduced",
    "wide-is-worse": "refuted",
    "size-helps": "reproduced",
    "alone-is-good": "undecided",
}


def test_the_ledger_is_the_same_when_computed_again(study: Path) -> None:
    assert verdicts(study / "reports/tables") == EXPECTED
    code, text = run("--study", str(study), "--check")
    assert (code, text) == (0, "4 claims: as in claims.csv\n")
    code, text = run("wide-is-better", "--study", str(study))
    assert code == 0 and text.startswith("wide-is-better: reproduced\n")
    assert "cells: wide: 0.196, 0.200, 0.204" in text and "alone" not in text


def test_a_flipped_sign_flips_the_verdict_and_fails_the_check(study: Path, tmp_path: Path) -> None:
    """A copy of the tables in which FVU has the other sign."""
    copy = tmp_path / "copy"
    shutil.copytree(study, copy, ignore=shutil.ignore_patterns("copy", "artifacts"))
    for name in ("cells.csv", "seeds.csv"):
        path = copy / "reports/tables" / name
        frame = pd.read_csv(path)
        frame["fvu"] *= -1
        frame.to_csv(path, index=False)
    found = entries(load_claims(copy / "claims.yaml"), read_tables(copy / "reports/tables"))
    flipped = {"reproduced": "refuted", "refuted": "reproduced", "undecided": "undecided"}
    assert {e.name: e.verdict for e in found} == {n: flipped[v] for n, v in EXPECTED.items()}
    code, text = run("--study", str(copy), "--check")
    assert code == 1
    assert f"wide-is-better: verdict: reproduced in {copy / 'reports/tables/claims.csv'}" in text


def test_a_bound_moved_after_the_fact_is_refused(study: Path) -> None:
    path = study / "claims.yaml"
    path.write_text(path.read_text().replace("below: 0.5", "below: 0.7"))
    code, text = run("--study", str(study))
    assert code == 2 and "compare.claims.path: claims.yaml has changed" in text
    result = CliRunner().invoke(app, ["pin", str(study)])
    assert "compare.claims.sha256" in result.output
    assert run("--study", str(study))[0] == 0


def test_an_unknown_claim_is_refused(study: Path) -> None:
    code, text = run("wide-is-bettr", "--study", str(study))
    assert code == 2 and "did you mean wide-is-better" in text


def test_the_interval_over_documents_is_in_that_over_seeds(study: Path) -> None:
    """FVU's own is over documents: added, it can only widen."""
    found = measure(statistic_of(study, "wide-is-better"), read_tables(study / "reports/tables"))
    frame = pd.read_csv(study / "reports/tables/seeds.csv")
    for name, half in (("fvu_low", -0.01), ("fvu_high", 0.01)):
        frame[name] = frame["fvu"] + half
    frame.to_csv(study / "reports/tables/seeds.csv", index=False)
    wider = measure(statistic_of(study, "wide-is-better"), read_tables(study / "reports/tables"))
    assert wider.high - wider.value == pytest.approx(
        math.hypot(found.high - found.value, 0.01, 0.01)
    )


def statistic_of(study: Path, name: str) -> Any:
    return load_claims(study / "claims.yaml")[name].test


def test_the_check_finds_claims_without_cells(study: Path) -> None:
    path = study / "claims.yaml"
    path.write_text(path.read_text().replace("- wide\n", "- wid\n"))
    CliRunner().invoke(app, ["pin", str(study)])
    shutil.copy(ROOT / "dvc.yaml", study / "dvc.yaml")
    (study / "stages").mkdir()
    result = CliRunner().invoke(app, ["check", str(study)])
    assert isinstance(result.exception, StudyError)
    assert "claims.wide-is-better.test: wid: no such cell; did you mean wide?" in str(
        result.exception
    )


def checked(study: Path, old: str, new: str) -> Result | Any:
    """`check` of the study with this change of its claims."""
    path = study / "claims.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    CliRunner().invoke(app, ["pin", str(study)])
    shutil.copy(ROOT / "dvc.yaml", study / "dvc.yaml")
    (study / "stages").mkdir()
    return CliRunner().invoke(app, ["check", str(study)])


def test_the_check_finds_differences_that_no_run_decides(study: Path) -> None:
    result = checked(study, "than:\n      - narrow", "than:\n      - wide")
    assert isinstance(result.exception, StudyError)
    assert "claims.wide-is-better.test: cells and than name the same cells" in str(result.exception)
    over = "over: cells\n      because: of pairs\n      than:\n      - narrow\n      - alone"
    (study / "stages").rmdir()
    result = checked(study, "than:\n      - wide", over)
    assert isinstance(result.exception, StudyError)
    assert "takes pairs, and cells names 1 and than 2" in str(result.exception)


@pytest.mark.parametrize(
    ("metric", "near"),
    [("fvv", "fvu"), ("monosemantic_fractoin", "monosemantic_fraction"),
     ("fvu_high", None), ("probe_auc_7", None), ("shared_fraction", None), ("mcc", None)],
)  # fmt: skip
def test_the_check_warns_of_metrics_that_no_stage_writes(
    metric: str, near: str | None, study: Path
) -> None:
    result = checked(study, "metric: fvu", f"metric: {metric}")
    assert result.exit_code == 0 and "ok: 4 claims" in result.output
    warned = [line for line in result.output.splitlines() if line.startswith("warning: ")]
    assert len(warned) == (near is not None)
    if near is not None:
        assert f"claims.wide-is-better.test.metric = {metric}: none that" in warned[0]
        assert near in warned[0].partition("did you mean ")[2]


# The repository's own claims


def test_there_are_enough_claims_of_our_own() -> None:
    claims = load_claims(ROOT / "claims.yaml")
    assert len([c for c in claims.values() if c.test.kind != "untested"]) >= 14


def test_recorded_numbers_are_those_of_their_file() -> None:
    claims = load_claims(ROOT / "claims.yaml")
    frame = pd.read_csv(ROOT / "reports/benchmarks/steps.csv").query("size == 'root'")
    rows = frame.drop_duplicates("step").set_index("step")
    one, other = rows.loc["ReLU, Matryoshka, 10 random"], rows.loc["ReLU, dense"]
    found = claims["matryoshka-takes-half-as-long-again"].test
    assert found.kind == "recorded"
    ratios = (one["ratio"] / other["ratio"], one["ratio_q1"] / other["ratio_q3"],
              one["ratio_q3"] / other["ratio_q1"])  # fmt: skip
    assert (found.value, found.low, found.high) == pytest.approx(ratios, abs=0.005)


def test_the_recorded_ledger_follows_from_the_recorded_tables() -> None:
    """In CI: what git keeps of the study decides its claims as reports/tables/claims.csv says."""
    settings = load(ROOT / "params.yaml").compare
    if settings.claims is None:
        pytest.skip("the study names no claims")
    assert run("--study", str(ROOT), "--check") == (
        0,
        f"{len(load_claims(ROOT / settings.claims.path))} claims: as in claims.csv\n",
    )


def test_every_cell_of_our_claims_is_in_the_study() -> None:
    study = load(ROOT / "params.yaml")
    if study.compare.claims is None:
        pytest.skip("the study names no claims")
    from sae_repro.cli.claims import check_claims

    assert check_claims(study, ROOT)


@given(names=st.lists(st.sampled_from(["a", "ab", "b", "abc"]), unique=True))
def test_patterns_keep_the_order_of_the_study(names: list[str]) -> None:
    assert matching(["*"], names) == names
    assert matching(["a*"], names) == [name for name in names if name.startswith("a")]


def test_unknown_cells_are_told_one_by_one() -> None:
    claims = Claims.model_validate(
        {"claims": {"c": claim("mean", ["a", "x*"], {"above": 0})}}
    ).claims
    assert [line.split(";")[0] for line in unknown_cells(claims, ["a"])] == [
        "claims.c.test: x*: no such cell"
    ]


def test_a_cell_of_a_series_that_failed_decides_nothing() -> None:
    slope = statistic("slope", list(SEEDS), axis="K", over="cells")
    with pytest.raises(UndecidedError, match="no result: topk-c"):
        measure(slope, tables({**SEEDS, "topk-c": []}))
