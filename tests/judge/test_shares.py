"""The cells of a study in shares: each cell once, and judged as it is without the others."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.judge import shares as module
from sae_repro.judge.shares import LEAST, judge_in_shares, shares_of
from sae_repro.params import Cell, Judge, saes_by_name


def cells_of(seeds: Sequence[int]) -> dict[str, Cell]:
    return {
        f"cell-{n}": Cell(
            expansion=4, activation="topk", k=2, seeds=tuple(range(count)) if count > 1 else None
        )
        for n, count in enumerate(seeds)
    }


@given(st.lists(st.integers(1, 5), max_size=60), st.integers(1, 8))
def test_each_cell_is_in_one_share_and_shares_are_of_like_size(seeds: list[int], most: int) -> None:
    cells = cells_of(seeds)
    shares = shares_of(cells, most)
    assert sorted(name for share in shares for name in share) == sorted(cells)
    sizes = [len(saes_by_name(share)) for share in shares]
    assert 1 <= len(sizes) <= most
    assert max(sizes) - min(sizes) <= max(seeds, default=0)
    if len(sizes) > 1:
        assert sum(sizes) >= LEAST * len(sizes)


def judged(cells: Mapping[str, Cell], settings: Judge, *_: Any) -> dict[str, dict[str, Any]]:
    return {sae: {"cell": sae, "judge": settings.kind} for sae in saes_by_name(cells)}


@pytest.mark.parametrize("kind", ["concepts", "replay"])
def test_results_are_those_of_all_cells_at_once(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In order, too: what is asked of an endpoint is asked by one process."""
    asked = []

    def judge_cells(cells: Mapping[str, Cell], *rest: Any) -> dict[str, dict[str, Any]]:
        asked.append(len(cells))
        return judged(cells, *rest)

    def in_turn(pieces: Sequence[tuple[Any, int]], **_: Any) -> None:
        for job, _units in reversed(pieces):
            job(lambda done: None)

    monkeypatch.setattr(module, "judge_cells", judge_cells)
    monkeypatch.setattr(module, "side_by_side", in_turn)
    monkeypatch.setenv("SAE_REPRO_JOBS", "3")
    cells = cells_of([3, 1] * 15)
    settings = Judge.model_validate(
        {"kind": kind} if kind == "concepts" else {"kind": kind, "model": "m"}
    )
    results = judge_in_shares(cells, settings, 0, tmp_path, Path(os.devnull))
    expected = judged(cells, settings)
    assert results == expected
    assert [*results] == [*expected]
    assert len(asked) == (3 if kind == "concepts" else 1)
