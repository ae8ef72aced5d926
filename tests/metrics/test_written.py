"""Every metric that an evaluation writes has a row, and every row is written by something."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights
from sae_repro.autoencoders.partners import Directions
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate.codes import CodeFile
from sae_repro.evaluate.consistency.activations import Activations
from sae_repro.evaluate.consistency.measure import measure
from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.held_out import Batch, held_out, validation_batches
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.metrics.ablation import logits
from sae_repro.evaluate.metrics.ngram import patterns
from sae_repro.evaluate.metrics.steering.table import MEANS
from sae_repro.evaluate.ratios import FIDELITY, FIDELITY_UNSEEN, RECONSTRUCTION, UNSEEN
from sae_repro.evaluate.reconstruction import accumulate, summarise
from sae_repro.evaluate.registry import chosen_metrics
from sae_repro.evaluate.summary import Summary
from sae_repro.metrics import METRICS, find
from sae_repro.metrics.metric import COLUMN_SUFFIXES, FRACTION
from sae_repro.params import Corpus, Evaluate, StoriesSource
from sae_repro.params.evaluate import BETWEEN_SEEDS, Chosen
from sae_repro.readers.shards import ActivationStore

HOOK = "blocks.0.hook_resid_post"
D = 8
NEEDS_MODEL = {"ngram": patterns.NAMES, "ablation": logits.NAMES, "steering": tuple(MEANS)}
"""Choices that run a language model: the names that they write."""


@pytest.fixture
def written(tmp_path: Path, make_store: Callable[..., Path]) -> dict[str, Summary]:
    """By choice of evaluate.metrics what it writes on a small study; under "always" the rest."""
    source = StoriesSource(kind="stories", n_documents=900)
    write_stories(Corpus(source=source), source, 0, tmp_path / "corpus")
    activations = make_store(validation=16_000, d_in=D)
    store = ActivationStore(activations)
    identity = torch.cat([torch.eye(D), -torch.eye(D)], dim=1)
    sae = SAE("standard", Weights(identity, torch.zeros(2 * D), identity.T, torch.zeros(D)))

    def batches() -> Iterator[Batch]:
        return validation_batches(store, HOOK, 500, "cpu")

    codes = CodeFile(tmp_path)
    totals = accumulate(sae, batches(), held_out(store, HOOK, 500, "cpu"), codes.append)
    codes.close()
    counted = (
        "tokens", "documents", "latents", "latents_alive", "fidelity_tokens", "tokens_unseen",
        "fidelity_tokens_unseen",
    )  # fmt: skip
    metrics = {**summarise(totals, D, 0.07), **dict.fromkeys(FIDELITY | FIDELITY_UNSEEN)}
    summaries = {
        "always": Summary(metrics, dict.fromkeys(counted, 1), {}),
        **{choice: Summary(dict.fromkeys(names), {}, {}) for choice, names in NEEDS_MODEL.items()},
    }
    directions = Directions.of(sae.weights, np.arange(2 * D))
    seeds = {"seed-0": directions, "seed-1": directions, "seed-2": directions}
    encoded = Activations([sae] * 3, [directions.latent] * 3, batches, 16_000, 0)
    summaries["consistency"] = measure(seeds, encoded, 0).summary
    for choice in set(get_args(Chosen)) - set(NEEDS_MODEL) - set(BETWEEN_SEEDS):
        settings = Evaluate.model_validate({"metrics": [choice], "references": [5]})
        study = Evaluation(
            settings=settings, seed=0, inputs="", trainer="", store=tmp_path,
            corpus=tmp_path / "corpus", subject=tmp_path, activations=activations,
        )  # fmt: skip
        folder = tmp_path / choice
        folder.mkdir()
        first_pass = FirstPass(study, sae, store, HOOK, batches, codes, totals, folder)
        summaries[choice] = chosen_metrics(first_pass, [choice])
    return summaries


def test_every_metric_has_a_row_and_every_row_is_written(written: dict[str, Summary]) -> None:
    rows = {
        choice: {name: find(name) for name in summary.metrics}
        for choice, summary in written.items()
    }
    assert [name for of in rows.values() for name, row in of.items() if row is None] == []
    assert all(row.choice == choice for choice, of in rows.items() for row in of.values() if row)
    assert {row.name for of in rows.values() for row in of.values() if row} == {
        metric.name for metric in METRICS
    }
    names = [name for summary in written.values() for name in summary.metrics]
    assert not [name for name in names if name.endswith(COLUMN_SUFFIXES)]


def test_rows_state_denominators_and_intervals(written: dict[str, Summary]) -> None:
    always = written["always"].counts
    for choice, summary in written.items():
        for name, value in summary.metrics.items():
            row = find(name)
            assert row is not None
            count = row.denominator_of(name)
            if choice not in NEEDS_MODEL and count is not None:
                assert count in always | summary.counts, name
            if row.unit == FRACTION and value is not None:
                assert 0 <= value <= 1, name
            if name in summary.intervals:
                assert row.interval != "none", name
                low, high = np.array(summary.intervals[name])
                assert row.unit != FRACTION or 0 <= low <= high <= 1, name


def test_rows_give_the_interval_of_every_ratio_over_documents() -> None:
    rows = {name: find(name) for name in (*RECONSTRUCTION, *UNSEEN, *FIDELITY, *FIDELITY_UNSEEN)}
    assert {row.interval for row in rows.values() if row} == {"bootstrap over documents"}
