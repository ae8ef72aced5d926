"""Metrics of the dictionary alone: nearest decoder rows, and the description length of codes."""

from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.summary import Summary


def measure(first_pass: FirstPass) -> Summary:
    """dictionary.parquet: each latent's nearest atom and the bits that it costs."""
    from sae_repro.evaluate.metrics.dictionary.description_length import description_length
    from sae_repro.evaluate.metrics.dictionary.neighbours import decoder_max_cosine

    totals, seed = first_pass.totals, first_pass.study.seed
    variance = float(totals.held_out.variance.sum()) / totals.tokens
    neighbours, nearness = decoder_max_cosine(first_pass.sae.weights.W_dec, totals.fired_k, seed)
    bits, length = description_length(
        first_pass.canonical, variance, totals.fired_k, totals.tokens, seed
    )
    first_pass.write(neighbours.merge(bits, on="latent"), "dictionary")
    return nearness | length
