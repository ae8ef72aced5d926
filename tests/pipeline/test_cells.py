"""Failed, untrained, seeded and imported cells through the whole pipeline."""

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
    assert cells.loc["fine", "target_l0"] == 3
    assert checkout.ran(checkout.repro()) == []


def test_negative_controls_and_seeds_reach_the_tables(finished: Checkout, tmp_path: Path) -> None:
    checkout = finished.copy(tmp_path / "controls")
    checkout.change("  context: 32\n  n_tokens", "  untrained_hooks: [blocks.0.hook_resid_post]\n"
                    "  context: 32\n  n_tokens")  # fmt: skip
    add_cells(
        checkout,
        "neurons: {baseline: neurons}",
        "pca: {baseline: pca}",
        "start: {baseline: untrained, expansion: 4, activation: batchtopk, k: 3}",
        "random: {expansion: 4, activation: batchtopk, k: 3, "
        "hook: untrained/blocks.0.hook_resid_post}",
        "several: {expansion: 4, activation: batchtopk, k: 3, seeds: [0, 1]}",
        "same: {expansion: 4, activation: batchtopk, k: 3, seed: 1}",
    )  # fmt: skip
    checkout.repro()
    assert checkout.ran(checkout.repro()) == []
    cells = cells_of(checkout)
    assert (cells["status"] == "ok").all()
    assert cells["architecture"].tolist()[3:8] == [
        "neurons", "PCA", "untrained batchtopk", "batchtopk without revival on random weights",
        "batchtopk without revival",
    ]  # fmt: skip
    assert cells.loc[["neurons", "pca"], "fvu"].max() < 1e-9
    assert cells.loc[["neurons", "pca"], "ce_recovered_zero"].tolist() == pytest.approx([1, 1])
    assert cells.loc["random", ["ce_clean", "kl"]].isna().all()
    assert cells.loc["random", "fidelity_tokens"] == 0
    for table in ("monosemantic", "concepts", "dictionary", "references", "ngram", "ablation"):
        assert (checkout.folder / f"artifacts/evaluate/random/{table}.parquet").is_file()
    artifacts = checkout.folder / "artifacts"
    config = json.loads((artifacts / "train/random/cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.0.hook_resid_post"
    assert config["metadata"]["model_weights"] == "random"
    # what was trained on trained weights is what it was before random ones were read as well
    for name in ("vanilla", "matryoshka"):
        path = f"artifacts/train/{name}/sae_weights.safetensors"
        assert (checkout.folder / path).read_bytes() == (finished.folder / path).read_bytes()
    seeds = pd.read_csv(checkout.folder / "reports/tables/seeds.csv").set_index("cell")
    assert seeds.loc["several/seed-1", "fvu"] == cells.loc["same", "fvu"]
    assert cells.loc["several", "fvu"] == pytest.approx(seeds["fvu"].mean())
    assert cells.loc["several", "fvu_sd"] == pytest.approx(seeds["fvu"].std())
    for place in ("seed-0", "seed-1"):
        folder = artifacts / "evaluate/several" / place
        assert {"contexts.parquet", "documents.parquet", "latents.parquet"} <= {
            p.name for p in folder.iterdir()
        }
    matched = pd.read_csv(checkout.folder / "reports/tables/matched_l0.csv")
    assert not matched["architecture"].str.contains("neurons|PCA|untrained|random weights").any()
    runs = (artifacts / "track/runs.jsonl").read_text().splitlines()
    assert {"several/seed-0", "several/seed-1"} <= {json.loads(line)["name"] for line in runs}
    # a seed more: nothing else trains
    before = sum(p.is_dir() for p in (checkout.folder / ".sae-repro/cells").iterdir())
    checkout.change("seeds: [0, 1]", "seeds: [0, 1, 2]")
    assert checkout.ran(checkout.repro()) == [
        "train", "evaluate", "judge", "compare", "report", "track"]  # fmt: skip
    after = sum(p.is_dir() for p in (checkout.folder / ".sae-repro/cells").iterdir())
    assert after == before + 3  # one trained, one evaluated, the cell's seeds compared


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
    assert cells.loc["theirs", "architecture"] == "imported jumprelu"
    (theirs / "config.json").write_text("{}")
    (checkout.folder / "params.yaml").write_text(
        (checkout.folder / "params.yaml").read_text().replace("seed: 0", "seed: 1", 1)
    )
    process = checkout.start()
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "cells.theirs.import = theirs has changed" in output
