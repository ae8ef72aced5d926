"""Figures of latents: drawn where measured, of the sparsest cells, the same bytes each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sae_repro.compare import portraits
from sae_repro.compare.collect import Result
from sae_repro.compare.portraits import covered_by_frequency, sparsest, write_portraits
from sae_repro.files import sha256_folder
from sae_repro.params import Cell


def result(
    folder: Path, name: str, k: int, *, l0: float, measured: bool = True,
    hook: str = "blocks.0.hook_resid_post",
) -> Result:  # fmt: skip
    evaluated = folder / name
    evaluated.mkdir()
    if measured:
        rng = np.random.default_rng(k)
        a = rng.standard_normal((50, 7))
        frame = pd.DataFrame(np.corrcoef(a.T), columns=[str(i) for i in range(7)])
        frame.insert(0, "latent", np.arange(7))
        frame.to_parquet(evaluated / "correlation_map.parquet")
        frequency = np.geomspace(1e-3, 1e-1, 16)
        pd.DataFrame({"frequency": frequency[::-1], "covered": frequency[::-1] > 0.01}).to_parquet(
            evaluated / "concepts.parquet"
        )
    cell = Cell.model_validate({"activation": "topk", "expansion": 8, "k": k, "revival": "auxk"})
    message = {"status": "ok", "hook": hook, "metrics": {"l0": l0}}
    return Result(name, cell, message, folder, evaluated)


def test_figures_come_twice_with_the_same_bytes(tmp_path: Path) -> None:
    cells = [result(tmp_path, "a", 8, l0=8)]
    digests = set()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_portraits(tmp_path / name, cells)
        digests.add(sha256_folder(tmp_path / name))
        assert {p.name for p in (tmp_path / name).iterdir()} == {
            f"{figure}.{ending}"
            for figure in ("correlation_maps", "coverage")
            for ending in ("png", "svg", "pdf")
        }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("hook", "unit"), [("activations", "rows"), ("blocks.0.hook_resid_post", "tokens")]
)
def test_rows_of_given_activations_are_not_called_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, unit: str
) -> None:
    kept: list[Figure] = []

    @contextmanager
    def keep(folder: Path, name: str, width: float, height: float) -> Iterator[Figure]:
        kept.append(Figure(figsize=(width, height)))
        yield kept[-1]

    monkeypatch.setattr(portraits, "drawn", keep)
    portraits.coverage(tmp_path, [result(tmp_path, "a", 8, l0=8, hook=hook)])
    expected = f"concept frequency (fraction of {unit}; 8 bins of equally many)"
    assert kept[0].axes[0].get_xlabel() == expected


def test_no_figure_of_unmeasured_metrics(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    write_portraits(tmp_path / "figures", [result(tmp_path, "a", 8, l0=8, measured=False)])
    assert list((tmp_path / "figures").iterdir()) == []


def test_the_sparsest_cell_of_an_architecture_is_shown(tmp_path: Path) -> None:
    dense, sparse = result(tmp_path, "a", 32, l0=32), result(tmp_path, "b", 8, l0=8)
    assert [r.name for r in sparsest([dense, sparse])] == ["b"]


def test_bins_hold_equally_many_concepts_by_frequency(tmp_path: Path) -> None:
    frequency, share, bounds = covered_by_frequency(result(tmp_path, "a", 8, l0=8))
    assert len(frequency) == len(share) == 8
    assert frequency == sorted(frequency)
    assert all(low <= value <= high for value, (low, high) in zip(share, bounds, strict=True))
    assert share == [0, 0, 0, 0, 1, 1, 1, 1]
    expected = np.geomspace(1e-3, 1e-1, 16)[:2]
    assert frequency[0] == pytest.approx(np.sqrt(expected.prod()))


def test_a_cell_without_a_latent_or_a_concept_has_no_panel(tmp_path: Path) -> None:
    """As of ten validation tokens: no concept occurs in them."""
    empty, whole = result(tmp_path, "a", 8, l0=8), result(tmp_path, "b", 16, l0=16)
    for table in ("correlation_map", "concepts"):
        path = empty.evaluated / f"{table}.parquet"
        pd.read_parquet(path).iloc[:0].to_parquet(path)
    (tmp_path / "none").mkdir()
    write_portraits(tmp_path / "none", [empty])
    assert not list((tmp_path / "none").iterdir())
    (tmp_path / "one").mkdir()
    write_portraits(tmp_path / "one", [empty, whole])
