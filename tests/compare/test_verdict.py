"""The verdict: marks and sentences no stronger than the intervals, and never of one seed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sae_repro.compare.collect import Result
from sae_repro.compare.report import write_verdicts
from sae_repro.params import Cell, Compare

FAMILIES = ("none", "fixed", "random")
SETTINGS = Compare(matched_l0=(16.0,), bootstrap=200)
Write = Callable[..., Result]


@pytest.fixture
def family(write_seeds: Write) -> Write:
    """Writes a cell of an architecture at L0 16, with several seeds that scatter little."""

    def go(
        i: int, fvu: float, *, seeds: int = 3, scatter: float = 0.001, tokens: int | None = None,
        k: int = 16, extra: Sequence[dict[str, float]] | None = None, lr: float = 1e-3,
    ) -> Result:  # fmt: skip
        cell = Cell(expansion=8, activation="batchtopk", k=k, prefixes=FAMILIES[i % 3],
                    revival="auxk" if i < 3 else "none", seeds=list(range(seeds)),
                    lr=lr)  # fmt: skip
        per_seed: list[dict[str, Any]] = [
            {"l0": float(k), "fvu": fvu * (1 + scatter * (n - 1)), "tokens": tokens, "noise": i,
             "extra": extra[n] if extra else None}
            for n in range(seeds)
        ]  # fmt: skip
        return write_seeds(f"{i}-{k}-{tokens or 0}", cell, per_seed)

    return go


def verdict(folder: Path, results: Sequence[Result], **more: Any) -> tuple[str, pd.DataFrame]:
    write_verdicts(folder, results, SETTINGS, 0, **more)
    return (folder / "verdict.md").read_text(), pd.read_csv(folder / "verdict.csv")


def test_the_best_are_marked_where_every_difference_holds(family: Write, tmp_path: Path) -> None:
    results = [family(i, fvu) for i, fvu in enumerate((0.10, 0.1001, 0.14, 0.16))]
    text, table = verdict(tmp_path, results)
    assert table["fvu_best"].tolist() == [True, True, False, False]
    assert "**0.100 [" in text and "**0.140" not in text
    assert "At L0 16 **batchtopk or matryoshka-fixed** (undecided between them)" in text
    assert "Training length was not varied" in text
    assert table["training_operations"].notna().all()


def test_what_another_seed_may_turn_is_undecided(family: Write, tmp_path: Path) -> None:
    results = [family(i, fvu, scatter=0.2) for i, fvu in enumerate((0.10, 0.12, 0.13))]
    text, table = verdict(tmp_path, results)
    assert not table["fvu_best"].any()
    assert "At L0 16 undecided among all 3" in text


def test_many_pairs_need_more_than_one(family: Write, tmp_path: Path) -> None:
    """A difference that holds between two architectures alone, and not as one of six pairs."""
    alone = [family(i, fvu, scatter=0.03) for i, fvu in enumerate((0.10, 0.113))]
    _, table = verdict(tmp_path, alone)
    assert table["fvu_best"].tolist() == [True, False]
    among = [*alone, family(2, 0.1131, scatter=0.03), family(3, 0.1132, scatter=0.03)]
    _, table = verdict(tmp_path, among)
    assert not table["fvu_best"].any()


def test_what_longer_training_turns_is_not_said(family: Write, tmp_path: Path) -> None:
    short = [family(i, fvu, k=k) for i, fvu in enumerate((0.10, 0.14)) for k in (16, 64)]
    text, table = verdict(tmp_path, short)
    assert "At L0 16 **batchtopk**." in text
    longer = [family(i, fvu, tokens=4000) for i, fvu in enumerate((0.09, 0.05))]
    text, table = verdict(tmp_path, [*short, *longer])
    assert "At L0 16 undecided among all 2" in text
    assert (
        "Checked at longer training of batchtopk and matryoshka-fixed: one difference was" in text
    )
    assert table["architecture"].tolist()[2:] == [
        "batchtopk, 4,000 tokens", "matryoshka-fixed, 4,000 tokens",
    ]  # fmt: skip
    text, _ = verdict(tmp_path, [*short, family(2, 0.03, tokens=9000)])
    assert "At L0 16 **batchtopk**." in text and "longer training may turn this" in text


def test_metrics_without_documents_are_told_apart_by_seeds(family: Write, tmp_path: Path) -> None:
    """And flagged ones decide nothing, though they are shown."""
    name = "dead_fraction_never"
    results = [
        family(i, 0.1 if flagged else 0.1001, extra=[{name: dead + 0.001 * n} for n in range(3)])
        for i, (flagged, dead) in enumerate(((True, 0.6), (False, 0.02), (False, 0.3)))
    ]
    _, table = verdict(tmp_path, results)
    assert table[f"{name}_best"].tolist() == [False, True, False]


def test_controls_are_at_the_bottom_and_never_marked(
    family: Write, write: Write, tmp_path: Path
) -> None:
    results = [
        write("neurons", Cell(baseline="neurons"), l0=64.0, fvu=1e-12),
        family(0, 0.10), family(1, 0.14),
    ]  # fmt: skip
    text, table = verdict(tmp_path, results)
    assert table["control"].tolist()[-1] == "neurons"
    assert table["fvu_best"].tolist()[:2] == [True, False]
    assert table["fvu_best"].isna().tolist() == [False, False, True]
    assert "*control: neurons*" in text.splitlines()[-1]


def test_cells_tuned_apart_are_one_line(family: Write, tmp_path: Path) -> None:
    """A recipe for each sparsity, of its own learning rate, is still one architecture."""
    results = [family(0, 0.1, lr=3e-3), family(0, 0.05, k=64, lr=1e-3), family(1, 0.14)]
    _, table = verdict(tmp_path, results)
    assert table["architecture"].tolist() == ["batchtopk", "matryoshka-fixed"]
