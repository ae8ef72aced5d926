"""Structure: how latents divide concepts by splitting, absorption, coverage and probes."""

from functools import lru_cache
from typing import TYPE_CHECKING

from sae_repro.evaluate.first_pass import FirstPass, bank_of
from sae_repro.evaluate.held_out import validation_batches
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.summary import Summary
from sae_repro.readers.joined import LevelledStore

if TYPE_CHECKING:
    from sae_repro.evaluate.metrics.structure.absorption import DenseProbe
    from sae_repro.evaluate.metrics.structure.sample import SampledTokens


def measure(first_pass: FirstPass) -> Summary:
    """concepts.parquet and pairs.parquet: how latents divide concepts, parents and children."""
    from sae_repro.evaluate.metrics.structure.concept_tables import concept_structure
    from sae_repro.evaluate.metrics.structure.sample import collect

    # a transcoder's probes and atoms meet at its target
    study, hook = first_pass.study, first_pass.decodes_at
    sample = collect(
        first_pass.canonical,
        _tokens(study, hook),
        first_pass.totals.held_out.mean_d,
        first_pass.sae.weights.W_dec.cpu().numpy(),
    )
    frames, summary = concept_structure(sample, study.seed, _dense_probes(study, hook))
    first_pass.write(frames.concepts, "concepts")
    first_pass.write(frames.pairs, "pairs")
    return summary


@lru_cache(maxsize=1)
def _tokens(study: Evaluation, hook: str) -> "SampledTokens":
    """The sample's tokens that a process's cells on a hook share."""
    from sae_repro.evaluate.metrics.structure.sample import sampled_tokens

    store, settings = LevelledStore(study.activations), study.settings
    batches = validation_batches(store, hook, settings.batch_size, settings.device)
    return sampled_tokens(batches, bank_of(study), study.seed, settings.structure_tokens)


@lru_cache(maxsize=2)
def _dense_probes(study: Evaluation, hook: str) -> "dict[int, DenseProbe]":
    """The probes on activations alone, per parent: fitted by the first cell of a process."""
    return {}
