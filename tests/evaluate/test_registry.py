"""A cell's folder: what is chosen is written and counted, and left out where it has no meaning."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate.codes import CodeFile
from sae_repro.evaluate.document_fidelity import fidelity_columns
from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.held_out import Batch, held_out, validation_batches
from sae_repro.evaluate.job import Evaluation
from sae_repro.evaluate.metrics.monosemanticity.fractions import NAMES
from sae_repro.evaluate.ratios import FIDELITY, values
from sae_repro.evaluate.reconstruction import accumulate
from sae_repro.evaluate.registry import MEASURES, chosen_metrics
from sae_repro.evaluate.summary import Summary
from sae_repro.files import read_json, write_json
from sae_repro.params import Corpus, Evaluate, StoriesSource
from sae_repro.params.evaluate import Chosen
from sae_repro.readers.activations import ActivationStore
from sae_repro.readers.documents import TokenDocuments

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
        settings=Evaluate(), seed=0, shared="", trainer="",
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
    return chosen_metrics(FirstPass(study, sae, store, HOOK, batches, codes, totals, folder))


def asking(study: Evaluation, *metrics: str) -> Evaluation:
    settings = Evaluate.model_validate({"metrics": metrics, "references": [5]})
    return replace(study, settings=settings)


def test_it_writes_a_row_per_latent_and_the_shares(study: Evaluation, tmp_path: Path) -> None:
    found = measured(asking(study, "monosemanticity"), tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "monosemantic.parquet")
    assert frame["latent"].tolist() == list(range(2 * D))
    assert set(found.metrics) == set(NAMES) == set(found.intervals)
    assert found.counts["concepts"] > 20
    assert found.counts["tokens_fit"] + found.counts["tokens_test"] == 16_000
    # random activations know no concepts
    assert found.metrics["monosemantic_fraction"] == 0
    assert np.abs(frame["M_raw"]).max() < 0.2


def test_it_can_be_left_out(study: Evaluation, tmp_path: Path) -> None:
    assert measured(asking(study), tmp_path / "out").metrics == {}
    assert not (tmp_path / "out" / "monosemantic.parquet").exists()


def test_each_metric_writes_its_table_and_says_how_sure_it_is(
    study: Evaluation, tmp_path: Path
) -> None:
    said = {}
    for metric, tables in {
        "structure": ("concepts", "pairs"),
        "dictionary": ("dictionary",),
        "references": ("references", "correlation_map"),
    }.items():
        folder = tmp_path / metric
        found = measured(asking(study, metric), folder)
        assert {path.stem for path in folder.glob("*.parquet")} == set(tables)
        assert set(found.intervals) <= set(found.metrics)
        assert found.counts
        said |= found.metrics
        for name, (low, high) in found.intervals.items():
            value = found.metrics[name]
            assert value is not None
            assert low <= value <= high
    assert said["coverage"] == 0
    assert said["decoder_max_cosine"] == 0
    # the reference is TopK on the same axes: it knows no other directions
    assert 0 < said["mean_max_correlation_5"] <= 1
    assert abs(said["mean_max_correlation_null_5"]) < 0.2


def test_metrics_join(study: Evaluation, tmp_path: Path) -> None:
    both = measured(asking(study, "dictionary", "monosemanticity"), tmp_path / "both")
    parts = [measured(asking(study, m), tmp_path / m) for m in ("dictionary", "monosemanticity")]
    assert both.metrics == parts[0].metrics | parts[1].metrics
    assert both.counts == parts[0].counts | parts[1].counts


def test_every_metric_that_params_offer_is_there() -> None:
    assert set(MEASURES) == set(get_args(Chosen))


def test_whole_documents_carry_no_concepts(study: Evaluation, tmp_path: Path) -> None:
    path = study.activations / "manifest.json"
    write_json(path, {**read_json(path), "pooling": "document_mean"})
    found = measured(asking(study, *MEASURES), tmp_path / "out")
    assert "description_length" in found.metrics
    assert not set(NAMES) & set(found.metrics)
    assert {path.stem for path in (tmp_path / "out").glob("*.parquet")} == {"dictionary"}


def test_random_weights_have_no_cross_entropy_to_recover(study: Evaluation) -> None:
    """Without a subject in the folder: nothing is even loaded."""
    store, document = ActivationStore(study.activations), np.arange(30)
    identity = torch.eye(D)
    sae = SAE("standard", Weights(identity, torch.zeros(D), identity, torch.zeros(D)))
    columns = fidelity_columns(study, sae, store, f"untrained/{HOOK}", document)
    assert all(not column.any() and len(column) == 30 for column in columns.values())
    assert values(FIDELITY, columns) == dict.fromkeys(FIDELITY)
