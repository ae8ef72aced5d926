"""How latents divide concepts: splitting, absorption, coverage, probes."""

from functools import lru_cache
from typing import TYPE_CHECKING

from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.summary import Summary

if TYPE_CHECKING:
    from sae_repro.evaluate.metrics.structure.absorption import DenseProbe


def measure(first_pass: FirstPass) -> Summary:
    """concepts.parquet and pairs.parquet: how latents divide concepts, parents and children."""
    from sae_repro.evaluate.metrics.structure.sample import collect
    from sae_repro.evaluate.metrics.structure.tables import concept_structure

    study = first_pass.study
    sample = collect(
        first_pass.canonical,
        first_pass.batches(),
        first_pass.bank,
        first_pass.totals.held_out.mean_d,
        first_pass.sae.weights.W_dec.cpu().numpy(),
        study.seed,
        study.settings.structure_tokens,
    )
    probes = _dense_probes(study.shared, first_pass.hook)
    frames, summary = concept_structure(sample, study.seed, probes)
    first_pass.write(frames.concepts, "concepts")
    first_pass.write(frames.pairs, "pairs")
    return summary


@lru_cache(maxsize=2)
def _dense_probes(contents: str, hook: str) -> "dict[int, DenseProbe]":
    """The probes on activations alone, per parent: fitted by the first cell of a process."""
    return {}
