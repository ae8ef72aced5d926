"""Correlation with small reference SAEs, and the map of correlations within one SAE."""

from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.summary import Summary


def measure(first_pass: FirstPass) -> Summary:
    """references.parquet: the best match of each latent of small SAEs; correlation_map.parquet."""
    import pandas as pd

    from sae_repro.evaluate.metrics.references.correlation import correlations, sampled_rows
    from sae_repro.evaluate.metrics.references.family import references

    study, fired_k = first_pass.study, first_pass.totals.fired_k
    rows = sampled_rows(first_pass.batches, first_pass.totals.tokens, study.seed)
    small = references(study.family(), first_pass.hook, study.settings.references)
    frame, correlation_map, summary = correlations(
        first_pass.codes, small, rows, fired_k, study.seed
    )
    first_pass.write(frame, "references")
    latents = correlation_map.latent
    columns = {str(k): correlation_map.correlation[:, i] for i, k in enumerate(latents)}
    first_pass.write(pd.DataFrame({"latent": latents, **columns}), "correlation_map")
    return summary
