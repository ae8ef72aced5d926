"""Monosemanticity of each latent against ground-truth concepts: M, its null and its class."""

from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.summary import Summary


def measure(first_pass: FirstPass) -> Summary:
    """monosemantic.parquet: a row per latent."""
    from sae_repro.evaluate.metrics.monosemanticity.fractions import summary
    from sae_repro.evaluate.metrics.monosemanticity.score import monosemanticity

    bank, seed = first_pass.bank, first_pass.study.seed
    frame = monosemanticity(first_pass.canonical, bank, seed, first_pass.totals.fired_k)
    first_pass.write(frame, "monosemantic")
    return summary(frame, bank, seed)
