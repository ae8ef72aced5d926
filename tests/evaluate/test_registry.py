"""Chosen metrics: each writes its table, and is left out where it has no meaning."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate.codes import CodeFile
from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.held_out import Batch, held_out, validation_batches
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.metrics.monosemanticity.fractions import NAMES
from sae_repro.evaluate.reconstruction import accumulate
from sae_repro.evaluate.registry import MEASURES, chosen_metrics
from sae_repro.evaluate.summary import Summary
from sae_repro.files import read_json, write_json
from sae_repro.params import Corpus, Evaluate, StoriesSource
from sae_repro.params.evaluate import BETWEEN_SEEDS, Chosen
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore

ROOT = Path(__file__).resolve().parents[2]
HOOK = "blocks.0.hook_resid_post"
D = 8


@pytest.fixture
def study(tmp_path: Path, make_store: Callable[..., Path]) -> Evaluation:
    """Activations whose index (document, position) exists in a corpus of stories."""
    source = StoriesSource(kind="stories", n_documents=900)
    folder = tmp_path / "corpus"
    write_stories(Corpus(source=source), source, 0, folder)
    assert TokenDocuments.load(folder).documents["length"].min() >= 20  # the index's own length
    return Evaluation(
        settings=Evaluate(), seed=0, inputs="", trainer="",
        store=tmp_path,
        corpus=folder, subject=tmp_path, activations=make_store(validation=16_000, d_in=D),
    )  # fmt: skip


def measured(study: Evaluation, folder: Path) -> Summary:
    folder.mkdir()
    identity = torch.cat([torch.eye(D), -torch.eye(D)], dim=1)
    sae = SAE("standard", Weights(identity, torch.zeros(2 * D), identity.T, torch.zeros(D)))
    store = ActivationStore(study.activations)

    def batches() -> Iterator[Batch]:
        return validation_batches(store, HOOK, 500, "cpu")

    codes = CodeFile(folder)
    totals = accumulate(sae, batches(), held_out(store, HOOK, 500, "cpu"), codes.append)
    codes.close()
    first_pass = FirstPass(study, sae, store, HOOK, batches, codes, totals, folder)
    return chosen_metrics(first_pass, study.settings.metrics)


def choosing(study: Evaluation, *metrics: str) -> Evaluation:
    settings = Evaluate.model_validate({"metrics": metrics, "references": [5]})
    return replace(study, settings=settings)


def test_monosemanticity_has_a_row_per_latent_and_its_fractions(
    study: Evaluation, tmp_path: Path
) -> None:
    summary = measured(choosing(study, "monosemanticity"), tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "monosemantic.parquet")
    assert frame["latent"].tolist() == list(range(2 * D))
    assert set(summary.metrics) == set(NAMES) == set(summary.intervals)
    assert summary.counts["concepts"] > 20
    assert summary.counts["tokens_fit"] + summary.counts["tokens_test"] == 16_000
    # random activations know no concepts
    assert summary.metrics["monosemantic_fraction"] == 0
    assert np.abs(frame["M_raw"]).max() < 0.2


def test_a_metric_that_is_not_chosen_is_left_out(study: Evaluation, tmp_path: Path) -> None:
    assert measured(choosing(study), tmp_path / "out").metrics == {}
    assert not (tmp_path / "out" / "monosemantic.parquet").exists()


def test_each_metric_writes_its_table_and_gives_intervals_that_hold_its_values(
    study: Evaluation, tmp_path: Path
) -> None:
    metrics = {}
    for metric, tables in {
        "structure": ("concepts", "pairs"),
        "dictionary": ("dictionary",),
        "references": ("references", "correlation_map"),
    }.items():
        folder = tmp_path / metric
        summary = measured(choosing(study, metric), folder)
        assert {path.stem for path in folder.glob("*.parquet")} == set(tables)
        assert set(summary.intervals) <= set(summary.metrics)
        assert summary.counts
        metrics |= summary.metrics
        for name, (low, high) in summary.intervals.items():
            value = summary.metrics[name]
            assert value is not None
            assert low <= value <= high
    assert metrics["coverage"] == 0
    assert metrics["decoder_max_cosine"] == 0
    # the reference is TopK on the same axes: it knows no other directions
    assert 0 < metrics["mean_max_correlation_5"] <= 1
    assert abs(metrics["mean_max_correlation_null_5"]) < 0.2


def test_metrics_join(study: Evaluation, tmp_path: Path) -> None:
    both = measured(choosing(study, "dictionary", "monosemanticity"), tmp_path / "both")
    parts = [measured(choosing(study, m), tmp_path / m) for m in ("dictionary", "monosemanticity")]
    assert both.metrics == parts[0].metrics | parts[1].metrics
    assert both.counts == parts[0].counts | parts[1].counts


@pytest.mark.parametrize("choice", sorted({*MEASURES, *get_args(Chosen)}))
def test_a_choice_has_its_places(choice: str) -> None:
    assert choice in get_args(Chosen), "params/evaluate.py: Chosen"
    if choice in BETWEEN_SEEDS:  # measured by a pass of its own, after the SAEs of a cell
        assert find_spec(f"sae_repro.evaluate.{choice}") and choice not in MEASURES
    else:
        assert choice in MEASURES, "evaluate/registry.py: MEASURES"
        assert MEASURES[choice].measure.__module__ == f"sae_repro.evaluate.metrics.{choice}"
    assert choice in str(Evaluate.model_fields["metrics"].description), "params/evaluate.py"
    tests = Path(__file__).parent / choice
    assert list(tests.glob("test_*.py")), f"{tests}: no tests"
    assert f"\n| `{choice}` |" in (ROOT / "docs/metrics.md").read_text(), "docs/metrics.md"


def test_whole_documents_carry_no_concepts(study: Evaluation, tmp_path: Path) -> None:
    path = study.activations / "manifest.json"
    write_json(path, {**read_json(path), "pooling": "document_mean"})
    summary = measured(choosing(study, *MEASURES), tmp_path / "out")
    assert "description_length" in summary.metrics
    assert not set(NAMES) & set(summary.metrics)
    assert {path.stem for path in (tmp_path / "out").glob("*.parquet")} == {"dictionary"}
