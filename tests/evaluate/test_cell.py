"""A cell's folder: monosemanticity is written, counted, and left out where it has no meaning."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_repro.autoencoders import SAE, Weights
from sae_repro.corpus.reader import TokenDocuments
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate import cell
from sae_repro.evaluate.cell import EvaluateJob, validation_batches
from sae_repro.evaluate.codes import CodeFile
from sae_repro.evaluate.monosemantic_summary import NAMES
from sae_repro.evaluate.streaming import Batch, accumulate, mean_of
from sae_repro.files import read_json, write_json
from sae_repro.params import Corpus, Evaluate, StoriesSource
from sae_repro.store import ActivationStore

HOOK = "blocks.0.hook_resid_post"
D = 8


@pytest.fixture
def job(tmp_path: Path, make_store: Callable[..., Path]) -> EvaluateJob:
    """Activations whose index (document, position) exists in a corpus of stories."""
    source = StoriesSource(kind="stories", n_documents=900)
    folder = tmp_path / "corpus"
    write_stories(Corpus(source=source), source, 0, folder)
    assert TokenDocuments.load(folder).documents["length"].min() >= 20  # the index's own length
    return EvaluateJob(
        sae=tmp_path, settings=Evaluate(), seed=0, key="", baseline_key="", store=tmp_path,
        corpus=folder, subject=tmp_path, activations=make_store(validation=16_000, d_in=D),
    )  # fmt: skip


def measured(job: EvaluateJob, folder: Path) -> cell.Summary:
    import torch

    folder.mkdir()
    identity = torch.cat([torch.eye(D), -torch.eye(D)], dim=1)
    sae = SAE("standard", Weights(identity, torch.zeros(2 * D), identity.T, torch.zeros(D)))
    store = ActivationStore(job.activations)

    def batches() -> Iterator[Batch]:
        return validation_batches(store, HOOK, 500, "cpu")

    mean_d, _, documents = mean_of(batches(), D)
    codes = CodeFile(folder)
    totals = accumulate(sae, batches(), mean_d, documents, codes.append)
    codes.close()
    return cell._monosemanticity(job, store, codes, totals, folder)


def test_it_writes_a_row_per_latent_and_the_shares(job: EvaluateJob, tmp_path: Path) -> None:
    found = measured(job, tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "monosemantic.parquet")
    assert frame["latent"].tolist() == list(range(2 * D))
    assert set(found.metrics) == set(NAMES) == set(found.intervals)
    assert found.counts["concepts"] > 20
    assert found.counts["tokens_fit"] + found.counts["tokens_test"] == 16_000
    # random activations know no concepts
    assert found.metrics["monosemantic_fraction"] == 0
    assert np.abs(frame["M_raw"]).max() < 0.2


def test_it_can_be_left_out(job: EvaluateJob, tmp_path: Path) -> None:
    without = EvaluateJob(**{**vars(job), "settings": Evaluate(metrics=())})
    assert measured(without, tmp_path / "out").metrics == {}
    assert not (tmp_path / "out" / "monosemantic.parquet").exists()


def test_whole_documents_carry_no_concepts(job: EvaluateJob, tmp_path: Path) -> None:
    path = job.activations / "manifest.json"
    write_json(path, {**read_json(path), "pooling": "document_mean"})
    found = measured(job, tmp_path / "out")
    assert found.metrics == dict.fromkeys(NAMES)
    assert found.counts == found.intervals == {}
