"""Truncations of codes: against a dense restatement, and of a study's cells on the command line."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sae_repro.autoencoders import SAE, Weights, batchtopk_threshold
from sae_repro.cli import app
from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.evaluate.codes import Code
from sae_repro.evaluate.held_out import held_out, validation_batches
from sae_repro.files import read_json, write_json
from sae_repro.latents.truncated_cell import powers_of_two
from sae_repro.latents.truncation import above_thresholds, first_latents, measured, strongest
from sae_repro.readers.shards import ActivationStore

from ..pipeline.conftest import small_text
from ..pipeline.in_process import carry_out, study

HOOK = "blocks.0.hook_resid_post"
D, K, MOST = 8, 24, 6


def sae_of(architecture: str) -> SAE:
    generator = torch.Generator().manual_seed(3)
    w_dec = torch.nn.functional.normalize(torch.randn(K, D, generator=generator), dim=1)
    weights = Weights(
        w_dec.T.contiguous(), torch.full((K,), -0.1), w_dec, torch.full((D,), 0.2),
        threshold=torch.full((K,), 0.3) if architecture == "jumprelu" else None,
    )  # fmt: skip
    return SAE(architecture, weights, k=MOST if architecture == "topk" else None)


def dense(sae: SAE, x_nd: torch.Tensor, keep_nk: torch.Tensor) -> tuple[float, float]:
    """(L0, FVU) of the entries of z in `keep_nk`, all laid out in fp64."""
    z_nk = sae.encode(x_nd).double()
    z_nk = torch.where(keep_nk, z_nk, 0.0)
    x_hat = z_nk @ sae.weights.W_dec.double() + sae.weights.b_dec.double()
    x = x_nd.double()
    fvu = (x - x_hat).square().sum() / (x - x.mean(dim=0)).square().sum()
    return float((z_nk > 0).sum() / len(x)), float(fvu)


def ranked(z_nk: torch.Tensor, k: int) -> torch.Tensor:
    """Whether an entry is among the k largest of its row."""
    return z_nk.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < k


@pytest.mark.parametrize("architecture", ["topk", "standard", "jumprelu"])
@pytest.mark.parametrize("size", [1024, 100])
def test_each_truncation_is_its_dense_restatement(
    make_store: Callable[..., Path], architecture: str, size: int
) -> None:
    sae, store = sae_of(architecture), ActivationStore(make_store(d_in=D))
    x_nd = torch.from_numpy(store.activations(HOOK, "validation").whole().astype(np.float32))
    counts, lengths, falling = (1, 2, MOST), (1, 5, K), (1.0, 0.6, 0.35)
    found = measured(
        sae,
        validation_batches(store, HOOK, size, "cpu"),
        held_out(store, HOOK, size, "cpu"),
        [strongest(counts), first_latents(lengths), above_thresholds(counts, falling)],
    )
    latent_k = torch.arange(K)
    z_nk = sae.encode(x_nd).double()
    wanted = [
        [ranked(z_nk, k) for k in counts],
        [(latent_k < length).expand_as(z_nk) for length in lengths],
        [z_nk > bound for bound in falling],
    ]
    for truncations, keeps in zip(found, wanted, strict=True):
        for one, keep in zip(truncations, keeps, strict=True):
            l0, fvu = dense(sae, x_nd, keep)
            assert one.l0 == pytest.approx(l0)
            assert one.fvu == pytest.approx(fvu, rel=1e-5)
            low, high = one.fvu_interval(0) or (0, 0)
            assert low < fvu < high


def test_equal_activations_are_cut_as_they_were_selected() -> None:
    """Of equally strong latents the first ones stay, and what equals a threshold is not above."""
    code = Code(
        index=np.zeros((2, 3), np.int64),
        row=np.array([0, 0, 0, 1]), latent=np.array([1, 4, 6, 2]),
        value=np.array([0.5, 1.0, 0.5, 0.25], np.float32),
    )  # fmt: skip
    assert strongest((1, 2)).group(code).tolist() == [1, 0, 2, 0]
    assert above_thresholds((1, 2), (0.5, 0.25)).group(code).tolist() == [1, 0, 1, 2]


def test_powers_of_two_end_with_the_whole() -> None:
    assert powers_of_two(16) == (1, 2, 4, 8, 16)
    assert powers_of_two(12) == (1, 2, 4, 8, 12)
    assert powers_of_two(1) == (1,)


# a study's cells

TOPK = {"expansion": 4, "activation": "topk", "k": 4}
CELLS = {
    "hierarchical": {**TOPK, "prefixes": "hierarchical", "seeds": [0, 1]},
    "topk-k4": TOPK,
    "topk-k2": {**TOPK, "k": 2, "seeds": [0, 1]},
    "narrow": {**TOPK, "expansion": 1},
    "batchtopk": {**TOPK, "activation": "batchtopk", "prefixes": "hierarchical"},
    "relu": {"expansion": 4, "penalty": "l1", "lambda": 1e-2},
    "untrained": {**TOPK, "k": 3},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study after `evaluate`; one cell was added since. Read it only."""
    folder = tmp_path_factory.mktemp("truncated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAE_REPRO_JOBS", "1")
        declared = study(small_text(folder / "text.jsonl"))
        declared["cells"] = {name: cell for name, cell in CELLS.items() if name != "untrained"}
        declared["evaluate"]["metrics"] = []
        carry_out(declared, "corpus", "subject", "extract", "train", "evaluate")
    write_json(folder / "params.yaml", {**declared, "cells": CELLS})
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = CliRunner().invoke(
        app, ["truncations", *arguments, "--study", str(folder)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def rows_of(folder: Path, to: Path, *arguments: str) -> list[dict[str, str]]:
    run(folder, *arguments, "--csv", str(to))
    with to.open() as file:
        return list(csv.DictReader(file))


def metrics_of(folder: Path, name: str) -> dict[str, float]:
    found: dict[str, float] = read_json(folder / "artifacts/evaluate" / name / "metrics.json")[
        "metrics"
    ]
    return found


def test_the_whole_code_has_the_metrics_of_evaluate(finished: Path, tmp_path: Path) -> None:
    cells = ("hierarchical", "topk-k4", "batchtopk", "relu")
    rows = rows_of(finished, tmp_path / "out.csv", *cells)
    for name in ("hierarchical/seed-0", "hierarchical/seed-1", "topk-k4", "batchtopk", "relu"):
        cell, _, seed = name.partition("/seed-")
        for cut in ("k", "prefix"):
            own = [r for r in rows if (r["sae"], r["cell"], r["cut"]) == (cell, cell, cut)]
            whole = [r for r in own if r["seed"] == seed][-1]
            metrics = metrics_of(finished, name)
            assert float(whole["fvu"]) == pytest.approx(metrics["fvu"], rel=1e-5)
            assert float(whole["l0"]) == pytest.approx(metrics["l0"], rel=1e-5)


def test_cells_trained_for_a_truncation_stand_beside_it(finished: Path, tmp_path: Path) -> None:
    rows = rows_of(finished, tmp_path / "out.csv", "hierarchical")
    beside = {(r["cut"], r["at"], r["sae"]) for r in rows if r["sae"] != "hierarchical"}
    assert beside == {("k", "4", "topk-k4"), ("k", "2", "topk-k2"), ("prefix", "32", "topk-k4"),
                      ("prefix", "8", "narrow")}  # fmt: skip
    two = {r["seed"]: r for r in rows if r["sae"] == "topk-k2"}
    seeds = [metrics_of(finished, f"topk-k2/seed-{seed}")["fvu"] for seed in (0, 1)]
    assert [float(two[seed]["fvu"]) for seed in "01"] == pytest.approx(seeds, rel=1e-5)
    assert float(two["mean"]["fvu"]) == pytest.approx(np.mean(seeds), rel=1e-5)
    assert float(two["mean"]["fvu_low"]) < min(seeds) < max(seeds) < float(two["mean"]["fvu_high"])


def test_batchtopk_is_cut_where_calibration_tokens_let_k_through(
    finished: Path, tmp_path: Path
) -> None:
    from sae_repro.autoencoders import load
    from sae_repro.autoencoders.activations import pre_activations

    rows = rows_of(finished, tmp_path / "out.csv", "batchtopk", "--k", "2")
    sae = load(finished / "artifacts/train/batchtopk")
    store = ActivationStore(finished / "artifacts/extract")
    x = {
        split: torch.from_numpy(store.activations(HOOK, split).whole().astype(np.float32))
        for split in ("calibration", "validation")
    }
    u_nk = pre_activations(sae.weights, x["calibration"], apply_b_dec_to_input=True)
    bound = batchtopk_threshold([u_nk], 2, len(u_nk))
    l0, fvu = dense(sae, x["validation"], sae.encode(x["validation"]) > bound)
    assert float(rows[0]["fvu"]) == pytest.approx(fvu, rel=1e-4)
    assert float(rows[0]["l0"]) == pytest.approx(l0, rel=1e-3)


def test_the_table_names_what_is_not_trained(finished: Path) -> None:
    output = run(finished, "hierarchical", "--k", "2", "--k", "3")
    assert "the k' strongest latents of each token" in output and "topk-k2" in output
    assert "untrained: not trained yet, left out" in output and "the first l" not in output
    assert "2 SAEs, 600 held-out tokens" in output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hierarchicl"], "did you mean hierarchical"),
        (["hierarchical/seed-7"], "no such cell"),
        (["untrained"], "not trained yet"),
        (["hierarchical", "--k", "5"], "--k 5: hierarchical/seed-0 has 4 as its k"),
        (["relu", "--prefix", "33"], "--prefix 33: relu has 32 latents in all"),
        (["relu", "--csv", "nowhere/out.csv"], "no folder nowhere; make it first"),
    ],
)
def test_faults_say_what_to_do(finished: Path, arguments: list[str], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        run(finished, *arguments)


def test_a_failed_seed_is_left_out_and_a_failed_cell_refused(
    finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished, tmp_path / "study")
    for failing in ("hierarchical/seed-1", "relu"):
        path = folder / "artifacts/train" / failing / "train.json"
        write_json(path, read_json(path) | {"status": "failed", "reason": "loss is NaN"})
        seal(path.parent)
    output = run(folder, "hierarchical", "--k", "4")
    assert "hierarchical/seed-1: its training failed, left out" in output and "1 SAE," in output
    with pytest.raises(StudyError, match=r"relu: its training failed \(loss is NaN\); choose"):
        run(folder, "relu")


def test_activations_that_are_missing_are_named(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "study")
    shutil.rmtree(folder / "artifacts/extract")
    with pytest.raises(StudyError, match=r"artifacts/extract: missing; .*extract"):
        run(folder, "relu")
