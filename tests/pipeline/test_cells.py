"""Cells that come to nothing, and cells that were trained elsewhere, through the whole pipeline."""

import json
from pathlib import Path

import pandas as pd
import pytest

from sae_repro.autoencoders import load
from sae_repro.autoencoders.interchange import export
from sae_repro.pins import model_digest

from .conftest import Checkout

pytestmark = pytest.mark.slow


def add_cells(checkout: Checkout, *lines: str) -> None:
    path = checkout.folder / "params.yaml"
    path.write_text(path.read_text() + "".join(f"  {line}\n" for line in lines))


def cells_of(checkout: Checkout) -> pd.DataFrame:
    return pd.read_csv(checkout.folder / "reports/tables/cells.csv").set_index("cell")


def test_a_failed_cell_is_shown_as_failed_and_the_others_finish(
    finished: Checkout, tmp_path: Path
) -> None:
    checkout = finished.copy(tmp_path / "failing")
    add_cells(
        checkout,
        "lost: {expansion: 4, penalty: l1, lambda: 1e6}",
        "wild: {expansion: 4, penalty: l1, lambda: 1e-2, lr: 10}",
        "fine: {expansion: 4, activation: gated, penalty: l1, lambda: 1e-2, target_l0: 3}",
    )
    checkout.repro()
    cells = cells_of(checkout)
    assert cells.loc[["lost", "wild"], "status"].tolist() == ["failed", "failed"]
    assert cells.drop(["lost", "wild"])["status"].eq("ok").all()
    assert (
        "collapsed: less than one latent fires in 100 tokens from step"
        in cells.loc["lost", "reason"]
    )
    for name in ("lost", "wild"):
        assert "last good checkpoint" in cells.loc[name, "reason"]
        assert "reconstruction" in cells.loc[name, "reason"]
        assert not (checkout.folder / f"artifacts/train/{name}/sae_weights.safetensors").exists()
    shown = (checkout.folder / "reports/tables/cells.md").read_text()
    assert "**Failed:** lost: collapsed" in shown
    headline = json.loads((checkout.folder / "reports/metrics.json").read_text())
    assert {"lost", "wild"}.isdisjoint(headline)
    assert cells.loc["fine", "asked_l0"] == 3
    assert checkout.ran(checkout.repro()) == []


def test_an_imported_sae_is_evaluated_like_our_own(finished: Checkout, tmp_path: Path) -> None:
    checkout = finished.copy(tmp_path / "importing")
    theirs = checkout.folder / "theirs"
    export(load(checkout.folder / "artifacts/train/matryoshka"), theirs, "dictionary_learning")
    add_cells(checkout, f"theirs: {{import: theirs, sha256: {model_digest(theirs)}}}")
    checkout.repro()
    cells = cells_of(checkout)
    for metric in ("l0", "fvu", "ce_sae", "kl"):
        assert cells.loc["theirs", metric] == pytest.approx(
            cells.loc["matryoshka", metric], rel=1e-4
        )
    assert cells.loc["theirs", "family"] == "imported jumprelu"
    (theirs / "config.json").write_text("{}")
    (checkout.folder / "params.yaml").write_text(
        (checkout.folder / "params.yaml").read_text().replace("seed: 0", "seed: 1", 1)
    )
    process = checkout.start()
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "cells.theirs.import = theirs has changed" in output
