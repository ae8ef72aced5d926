"""Figures of the tables over activations: the table's numbers, and none without a table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sae_repro.compare import activation_figures
from sae_repro.compare.collect import Result
from sae_repro.params import Cell


@pytest.mark.parametrize(
    ("hook", "unit"), [("activations", "rows"), ("blocks.1.hook_resid_post", "tokens")]
)
def test_lines_hold_the_tables_numbers(
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[..., Result],
    tmp_path: Path,
    hook: str,
    unit: str,
) -> None:
    kept: dict[str, Figure] = {}

    @contextmanager
    def keep(folder: Path, name: str, width: float, height: float) -> Iterator[Figure]:
        kept[name] = Figure(figsize=(width, height))
        yield kept[name]

    monkeypatch.setattr(activation_figures, "drawn", keep)
    results = [write("a", Cell(expansion=8, activation="topk", k=16, hook=hook), l0=16.0)]
    tables = tmp_path / "tables"
    tables.mkdir()
    activation_figures.write_activation_figures(tmp_path, tables, results, (16.0,))
    assert kept == {}
    dead = {"0.001": 0.0, "0.07": 0.1, "1": 0.4}
    pd.DataFrame([{"cell": "a", "latents": 512, "never": 0.0, **dead}]).to_csv(
        tables / "dead_curve.csv", index=False
    )
    kappa = {f"kappa_{i}": i / 10 for i in range(1, 6)}
    rows = [{"cell": "a", "group": group, "latents": 9, **kappa}
            for group in ("scored", "monosemantic")]  # fmt: skip
    pd.DataFrame(rows).to_csv(tables / "monosemantic_by_quantile.csv", index=False)
    activation_figures.write_activation_figures(tmp_path, tables, results, (16.0,))
    (line,) = kept["dead_curve"].axes[0].lines
    assert np.allclose(line.get_xydata(), [(float(x), y) for x, y in dead.items()])
    (line,) = kept["monosemantic_by_quantile"].axes[0].lines
    assert np.allclose(line.get_ydata(), list(kappa.values()))
    assert kept["monosemantic_by_quantile"].axes[0].get_ylabel().startswith(f"{unit} with the")
