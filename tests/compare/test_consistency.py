"""The table and the figure of consistency: what was measured, and no more."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from sae_repro.compare.collect import Result
from sae_repro.compare.consistency import consistent, write_consistency
from sae_repro.compare.consistency_figure import draw_consistency
from sae_repro.files import sha256_folder
from sae_repro.params import Cell

TOPK = {"activation": "topk"}
Make = Callable[..., Result]


@pytest.fixture
def make(write_seeds: Callable[..., Result]) -> Make:
    """Writes a cell of three seeds whose latents' M follows their stability by `slope`."""

    def go(
        name: str, pw_mcc: float = 0.5, *, k: int = 8, expansion: int = 2, slope: float = 1.0,
        l0: float | None = None, **choices: Any,
    ) -> Result:  # fmt: skip
        cell = Cell.model_validate(
            {**TOPK, "k": k, "expansion": expansion, "seeds": [0, 1, 2], **choices}
        )
        result = write_seeds(name, cell, [{"l0": k if l0 is None else l0} for _ in range(3)])
        rng = np.random.default_rng(3)
        n = int(result.measured["d_sae"])
        for place in cell.members():
            folder = result.evaluated / place
            stability = rng.random(n)
            frame = pd.read_parquet(folder / "latents.parquet")
            frame = frame.assign(stability=stability, density=rng.random(n))
            frame.to_parquet(folder / "latents.parquet")
            quality = slope * stability + rng.random(n)
            pd.DataFrame({"M": quality, "phi": -quality}).to_parquet(
                folder / "monosemantic.parquet"
            )
        (result.evaluated / "consistency").mkdir()
        pd.DataFrame(
            [
                {"seed_a": f"seed-{a}", "seed_b": f"seed-{b}", "threshold": t,
                 "shared_fraction": 1 - t}
                for a, b in ((0, 1), (0, 2), (1, 2)) for t in (0.0, 0.5, 0.7, 0.9)
            ]
        ).to_parquet(result.evaluated / "consistency/curve.parquet")  # fmt: skip
        measured = dict(result.measured)
        measured["metrics"] = measured["metrics"] | {
            "pw_mcc": pw_mcc, "pw_mcc_all": pw_mcc, "pw_mcc_null": 0.38, "shared_fraction": 0.1,
            "shared_fraction_null": 0.0, "activation_mcc": 0.4, "activation_mcc_null": 0.02,
        }  # fmt: skip
        measured["intervals"] = measured["intervals"] | {"pw_mcc": [pw_mcc - 0.01, pw_mcc + 0.01]}
        measured["counts"] = measured["counts"] | {
            "consistency_seeds": 3, "consistency_pairs": 3, "consistency_matched": 3 * n,
            "consistency_latents": 6 * n, "consistency_tokens": 1000,
        }  # fmt: skip
        (result.evaluated / "metrics.json").write_text(json.dumps(measured))
        return replace(result, measured=measured)

    return go


def test_rows_are_by_target_and_width_the_most_consistent_first(make: Make) -> None:
    cells = [make("a", 0.4, k=16), make("b", 0.5, k=8), make("c", 0.6, k=8),
             make("d", 0.9, k=8, expansion=4)]  # fmt: skip
    assert [r.name for r in consistent(cells)] == ["c", "b", "d", "a"]


def test_the_table_has_intervals_nulls_and_correlations(make: Make, tmp_path: Path) -> None:
    cell, flat, missed = make("a"), make("b", slope=0.0), make("c", l0=20.0)
    write_consistency(tmp_path, [cell, flat, missed])
    frame = pd.read_csv(tmp_path / "consistency.csv").set_index("cell")
    row = frame.loc["a"]
    assert (row["pw_mcc"], row["pw_mcc_low"], row["pw_mcc_null"]) == (0.5, 0.49, 0.38)
    assert row["latents_alive"] == cell.measured["d_sae"]
    expected = np.mean(
        [
            spearmanr(
                sae.latents["stability"],
                pd.read_parquet(sae.evaluated / "monosemantic.parquet")["M"],
            ).statistic
            for sae in cell.saes
        ]
    )
    assert row["stability_M"] == pytest.approx(expected)
    assert row["stability_M_low"] < expected < row["stability_M_high"]
    assert row["stability_phi"] == pytest.approx(-expected)
    # density has no part in it
    assert row["stability_M_given_density"] == pytest.approx(expected, abs=0.05)
    assert frame.loc["b", "stability_M_low"] < 0 < frame.loc["b", "stability_M_high"]
    assert frame["missed"].to_dict() == {"a": "no", "b": "no", "c": "yes"}
    text = (tmp_path / "consistency.md").read_text()
    assert "0.500 [0.490, 0.510]" in text and "8 *" in text


def test_latents_of_one_density_have_no_part_of_it_taken_out(make: Make, tmp_path: Path) -> None:
    cell = make("a")
    for sae in cell.saes:
        path = sae.evaluated / "latents.parquet"
        frame = pd.read_parquet(path)
        frame.assign(density=frame["stability"]).to_parquet(path)
    write_consistency(tmp_path, [replace(cell)])
    # stability is density: nothing is left
    assert pd.read_csv(tmp_path / "consistency.csv")["stability_M_given_density"].tolist() == [0.0]


def test_nothing_is_written_without_seeds(write: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    alone = write("alone", Cell.model_validate({**TOPK, "k": 8, "expansion": 2}))
    write_consistency(out, [alone])
    draw_consistency(out, [alone])
    assert list(out.iterdir()) == []


def test_the_figure_is_drawn_with_the_same_bytes_and_of_one_cell_too(
    make: Make, tmp_path: Path
) -> None:
    grid = [make(f"k{k}-x{x}", k=k, expansion=x) for k in (8, 16) for x in (2, 4)]
    grid.append(make("start", k=8, baseline="untrained"))
    for cells in (grid, grid[:1]):
        digests = set()
        for number in range(2):
            out = tmp_path / f"out-{len(cells)}-{number}"
            out.mkdir()
            draw_consistency(out, cells)
            digests.add(sha256_folder(out))
            assert {path.name for path in out.iterdir()} == {
                f"consistency.{ending}" for ending in ("png", "svg", "pdf")
            }
        assert len(digests) == 1
