"""The table of steering: differences over seeds, and what failed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.collect import Result
from sae_repro.compare.steering import METRICS, write_steering
from sae_repro.evaluate.metrics.steering.table import MEANS, row
from sae_repro.numerics.intervals import student

from .results import TOPK, result

COUNTS = {"steering_prompts": 64, "steering_tokens": 768}


def one_sae(difference: float | None, latent: int) -> pd.DataFrame:
    """One concept, its latent's difference, and what it is compared with."""
    about: dict[str, Any] = {"concept": "name", "role": "next", "tokens": 768, "kl": 0.3}
    return pd.DataFrame(
        [
            row(**about, condition="unsteered", share=0.1),
            row(**about, condition="random direction", share=0.12, against="unsteered",
                difference=0.02, low=0.0, high=0.04, strength=9.0),
            row(**about, condition="latent", latent=latent, phi=0.7, difference=difference,
                low=None if difference is None else difference - 0.05,
                high=None if difference is None else difference + 0.05,
                reason="no strength" if difference is None else None),
            row(**about, condition="latent set to 0", latent=latent, difference=0.0, low=0.0,
                high=0.0) | {"kl": 0.002},
        ]
    )  # fmt: skip


def cell(folder: Path, name: str, frames: list[pd.DataFrame], **values: Any) -> Result:
    """A cell whose seeds, or whose one SAE, wrote these tables."""
    made = result(name, TOPK, values, spread=0.01 if len(frames) > 1 else None)
    places = list(made.cell.members())
    assert len(places) == len(frames)
    for place, frame in zip(places, frames, strict=True):
        there = folder / name / place
        there.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(there / "steering.parquet")
        (there / "metrics.json").write_text(
            '{"status": "ok", "metrics": {}, "intervals": {}, "counts": '
            '{"steering_prompts": 64, "steering_tokens": 768}}'
        )
    counts = {**made.measured["counts"], **COUNTS}
    return replace(made, evaluated=folder / name, measured={**made.measured, "counts": counts})


def written(folder: Path, *cells: Result) -> tuple[pd.DataFrame, str]:
    write_steering(folder, cells)
    text = (folder / "steering.md").read_text()
    path = folder / "steering.csv"
    return (pd.read_csv(path) if path.is_file() else pd.DataFrame()), text


def test_intervals_are_over_seeds_where_there_are_several(tmp_path: Path) -> None:
    values = [0.1, 0.2, 0.24]
    frames = [one_sae(value, k) for k, value in enumerate(values)]
    several = cell(tmp_path, "several", frames, steering_next_over_random=(0.18, 0.01, 0.35))
    one = cell(tmp_path, "one", [one_sae(0.3, 7)])
    table, text = written(tmp_path, several, one)
    latent = table[table["condition"] == "latent"].set_index(["cell", "concept"])
    mean, low, high = student(values)
    assert latent.loc[("several", "name"), ["difference", "low", "high"]].tolist() == pytest.approx(
        [mean, low, high]
    )
    assert latent.loc[("several", "name"), "latents"] == "0 1 2"
    assert latent.loc[("one", "name"), ["low", "high"]].tolist() == pytest.approx([0.25, 0.35])
    assert latent["interval_over"].tolist() == ["seeds", "seeds", "beginnings"]
    assert latent.loc[("several", "mean"), "difference"] == 0.18
    assert f"+{mean:.3f} [{low:+.3f}, {high:+.3f}]" in text and "+0.300 [+0.250, +0.350]" in text
    assert "64 beginnings of its own: 768 tokens" in text


def test_seeds_that_agree_exactly_keep_an_interval(tmp_path: Path) -> None:
    table, text = written(tmp_path, cell(tmp_path, "c", [one_sae(0.1, k) for k in range(3)]))
    zeroed = table[table["condition"] == "latent set to 0"].iloc[0]
    assert [zeroed["low"], zeroed["high"]] == pytest.approx([-1 / 1536, 1 / 1536])
    assert "0.000 [-0.001, +0.001] (0.0020)" in text


def test_what_failed_is_in_the_table(tmp_path: Path) -> None:
    unreached = cell(tmp_path, "weak", [one_sae(None, 3)])
    unmeasured = pd.DataFrame([row(reason="blocks.1.hook_mlp_out is no residual stream")])
    table, text = written(tmp_path, unreached, cell(tmp_path, "mlp", [unmeasured]))
    failed = table[table["condition"] == "latent"].iloc[0]
    assert failed["reason"] == "no strength" and np.isnan(failed["difference"])
    assert "| no strength" in text
    assert "Not measured: mlp: blocks.1.hook_mlp_out is no residual stream." in text


def test_cells_that_were_all_left_out_leave_their_reason(tmp_path: Path) -> None:
    frame = pd.DataFrame([row(reason="no grammar")])
    table, text = written(tmp_path, cell(tmp_path, "news", [frame]))
    assert table.empty and text == "# Steering\n\nNot measured: news: no grammar.\n"


def test_nothing_is_written_where_nothing_was_to_be_steered(tmp_path: Path) -> None:
    write_steering(tmp_path, [replace(result("c", TOPK, {}, None), evaluated=tmp_path)])
    assert not [*tmp_path.glob("steering.*")]


def test_the_means_of_the_table_are_those_that_are_measured() -> None:
    assert {metric: (condition, role) for (role, condition), metric in METRICS.items()} == MEANS
