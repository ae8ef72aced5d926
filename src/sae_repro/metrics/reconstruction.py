"""Sparsity and reconstruction: what the first pass over the validation activations sums up."""

from sae_repro.metrics.metric import COSINE, Metric

RECONSTRUCTION = (
    Metric(
        name="l0",
        definition="mean number of latents with a > 0 per token",
        unit="latents per token",
        denominator="tokens",
        interval="bootstrap over documents",
        shown=("metrics.json", "cells.md", "frontier"),
    ),
    Metric(
        name="fvu",
        definition="fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − x̄‖², x̄ the mean over all "
        "evaluated tokens; predicting x̄ gives 1",
        unit="ratio",
        denominator="tokens",
        interval="bootstrap over documents",
        better="lower",
        controls="sparse",
        shown=("metrics.json", "cells.md", "matched_l0.md", "frontier"),
    ),
    Metric(
        name="fvu_unseen",
        definition="fvu over the tokens whose prefix no training window begins with, x̄ as in fvu: "
        "where two windows begin alike the activations are the same vector, which was trained on",
        unit="ratio",
        denominator="tokens_unseen",
        interval="bootstrap over documents",
        better="lower",
        controls="sparse",
    ),
    Metric(
        name="explained_variance",
        definition="1 − fvu",
        unit="ratio",
        denominator="tokens",
        interval="bootstrap over documents",
        better="higher",
        controls="sparse",
    ),
    Metric(
        name="squared_error_per_token",
        definition="mean ‖x − x̂‖² over tokens",
        unit="squared activation",
        denominator="tokens",
        interval="bootstrap over documents",
        better="lower",
        controls="sparse",
    ),
    Metric(
        name="mse_per_dim",
        definition="mean squared error over tokens and dimensions",
        unit="squared activation",
        denominator="tokens",
        better="lower",
        controls="sparse",
    ),
    Metric(
        name="mae_per_dim",
        definition="mean absolute error over tokens and dimensions",
        unit="activation",
        denominator="tokens",
        better="lower",
        controls="sparse",
    ),
    Metric(
        name="cosine",
        definition="mean cos(x, x̂) over tokens; those with a zero norm on either side are left out "
        "and counted (zero_norm_tokens)",
        unit=COSINE,
        denominator="tokens",
        interval="bootstrap over documents",
        better="higher",
        controls="sparse",
        shown=("metrics.json",),
    ),
    Metric(
        name="cosine_spread",
        definition="standard deviation of cos(x, x̂) over tokens",
        unit=COSINE,
        denominator="tokens",
    ),
    Metric(
        name="relative_norm",
        definition="Σ‖x̂‖ / Σ‖x‖: below 1 where the SAE shrinks",
        unit="ratio",
        denominator="tokens",
    ),
)
