"""Correlation with small reference SAEs, and the map of correlations within one SAE."""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.summary import Summary
from sae_repro.readers.shards import ActivationStore

if TYPE_CHECKING:  # the stage names references in a process of its own, which needs no torch
    from sae_repro.evaluate.first_pass import FirstPass
    from sae_repro.evaluate.held_out import Batch
    from sae_repro.evaluate.metrics.references.correlation import EncodedReferences, Rows


def measure(first_pass: "FirstPass") -> Summary:
    """references.parquet: the best match of each latent of small SAEs; correlation_map.parquet."""
    import pandas as pd

    from sae_repro.evaluate.metrics.references.correlation import correlations

    study, fired_k = first_pass.study, first_pass.totals.fired_k
    rows, encoded = _references(study, first_pass.hook)
    frame, correlation_map, summary = correlations(
        first_pass.codes, encoded, rows, fired_k, study.seed
    )
    first_pass.write(frame, "references")
    latents = correlation_map.latent
    columns = {str(k): correlation_map.correlation[:, i] for i, k in enumerate(latents)}
    first_pass.write(pd.DataFrame({"latent": latents, **columns}), "correlation_map")
    return summary


@lru_cache(maxsize=1)
def _references(study: Evaluation, hook: str) -> "tuple[Rows, EncodedReferences]":
    """The sampled rows and the references' codes of them, which a process's cells share."""
    from sae_repro.evaluate.held_out import validation_batches
    from sae_repro.evaluate.metrics.references.correlation import EncodedReferences, sampled_rows
    from sae_repro.evaluate.metrics.references.family import references

    store, settings = ActivationStore(study.activations), study.settings

    def batches() -> "Iterator[Batch]":
        return validation_batches(store, hook, settings.batch_size, settings.device)

    rows = sampled_rows(batches, store.index("validation").rows, study.seed)
    small = references(study.family(), hook, settings.references)
    return rows, EncodedReferences.of(small, rows, study.seed)
