"""An SAE's evaluated folder: metrics with their intervals, and tables that give them again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights, load, save
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate import evaluation
from sae_repro.evaluate.evaluation import evaluate_into
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.ratios import FIDELITY, FIDELITY_UNSEEN, RECONSTRUCTION, intervals, values
from sae_repro.files import read_json, write_json
from sae_repro.params import Corpus, Evaluate, StoriesSource

HOOK = "blocks.0.hook_resid_post"
D = 8


@pytest.fixture
def study(tmp_path: Path, make_store: Callable[..., Path]) -> Evaluation:
    source = StoriesSource(kind="stories", n_documents=300)
    write_stories(Corpus(source=source), source, 0, tmp_path / "corpus")
    return Evaluation(
        settings=Evaluate(metrics=()), seed=0, inputs="", trainer="", store=tmp_path,
        corpus=tmp_path / "corpus", subject=tmp_path,
        activations=make_store(validation=2_000, d_in=D),
    )  # fmt: skip


def train_json(folder: Path, **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    summary = {"status": "ok", "hook": HOOK, "d_in": D, "d_sae": 2 * D,
               "choices": {"activation": "relu"}, "unreached": []}  # fmt: skip
    write_json(folder / "train.json", summary | changed)
    return folder


def trained(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.standard_normal((2 * D, D)).astype(np.float32))
    w /= w.norm(dim=1, keepdim=True)
    save(
        SAE("standard", Weights(w.T.clone(), torch.full((2 * D,), -0.2), w, torch.zeros(D))), folder
    )
    return train_json(folder)


def with_losses(
    study: Evaluation, sae: SAE, store: Any, hook: str, document: np.ndarray, target: str | None
) -> dict:
    """Losses of a language model that is not there."""
    rng = np.random.default_rng(1)
    targets = np.where(np.arange(len(document)) < 40, 19, 0)
    losses = {"ce_clean": 2.0, "ce_sae": 2.2, "ce_zero": 6.0, "ce_mean": 5.0, "kl": 0.2}
    return {"targets": targets, "unseen_targets": targets // 2} | {
        f"{among}{name}_sum": of * (mean + 0.1 * rng.standard_normal(len(document)))
        for among, of in (("", targets), ("unseen_", targets // 2))
        for name, mean in losses.items()
    }


def test_every_headline_metric_has_an_interval_that_documents_parquet_gives_again(
    study: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "fidelity_columns", with_losses)
    folder = tmp_path / "evaluated"
    folder.mkdir()
    evaluate_into(study, trained(tmp_path / "trained"), folder)
    measured = read_json(folder / "metrics.json")
    metrics, bounds = measured["metrics"], measured["intervals"]
    for name in (*RECONSTRUCTION, *FIDELITY, *FIDELITY_UNSEEN):
        low, high = bounds[name]
        assert low < metrics[name] < high, name
    columns = {
        name: column.to_numpy()
        for name, column in pd.read_parquet(folder / "documents.parquet").items()
    }
    again = values(RECONSTRUCTION | FIDELITY | FIDELITY_UNSEEN, columns)
    assert {name: metrics[name] for name in again} == again
    assert intervals(columns, study.seed).items() <= bounds.items()
    counts = measured["counts"]
    assert (counts["documents"], counts["tokens"]) == (100, 2000)
    assert (counts["fidelity_documents"], counts["fidelity_tokens"]) == (40, 40 * 19)
    assert counts["fidelity_tokens_unseen"] == 40 * 9


def test_the_size_of_the_batches_decides_no_interval(
    study: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "fidelity_columns", with_losses)
    sae, measured = trained(tmp_path / "trained"), []
    for size in (2000, 37):
        folder = tmp_path / f"evaluated-{size}"
        folder.mkdir()
        settings = study.settings.model_copy(update={"batch_size": size})
        evaluate_into(replace(study, settings=settings), sae, folder)
        measured.append(read_json(folder / "metrics.json"))
    whole, cut = measured
    assert whole["counts"] == cut["counts"]
    for part in ("metrics", "intervals"):
        assert whole[part].keys() == cut[part].keys()
        for name, value in whole[part].items():
            same = None if value is None else pytest.approx(value, rel=1e-6)
            assert cut[part][name] == same, name


def test_a_failed_cell_keeps_its_reason_and_has_no_number(
    study: Evaluation, tmp_path: Path
) -> None:
    failed = train_json(tmp_path / "failed", status="failed", reason="loss is NaN at step 3")
    folder = tmp_path / "evaluated"
    folder.mkdir()
    evaluate_into(study, failed, folder)
    measured = read_json(folder / "metrics.json")
    assert (measured["status"], measured["reason"]) == ("failed", "loss is NaN at step 3")
    assert measured["metrics"] == measured["counts"] == measured["intervals"] == {}
    assert [path.name for path in folder.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("factor", [1e30, 1e38])
def test_an_sae_that_overflows_on_held_out_activations_has_failed(
    study: Evaluation, tmp_path: Path, factor: float
) -> None:
    """Its weights are finite, and so was its loss."""
    folder = trained(tmp_path / "sae")
    sae = load(folder)
    save(replace(sae, weights=replace(sae.weights, W_enc=sae.weights.W_enc * factor,
                                      b_dec=sae.weights.b_dec + factor)), folder)  # fmt: skip
    evaluated = tmp_path / "evaluated"
    evaluated.mkdir()
    evaluate_into(study, folder, evaluated)
    measured = read_json(evaluated / "metrics.json")
    assert measured["status"] == "failed"
    assert measured["reason"] == (
        "the reconstruction is not finite in 100 of 100 validation documents"
    )
    assert measured["metrics"] == measured["counts"] == measured["intervals"] == {}
    assert [path.name for path in evaluated.iterdir()] == ["metrics.json"]
