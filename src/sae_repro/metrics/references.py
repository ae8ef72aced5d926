"""Correlation with small reference SAEs trained on the same activations."""

from sae_repro.metrics.metric import CORRELATION, Metric

REFERENCES = (
    Metric(
        name="mean_max_correlation_<width>",
        definition="mean over the latents of a reference SAE of that width of the largest "
        "correlation with a latent of this one",
        unit=CORRELATION,
        choice="references",
        denominator="reference_latents_<width>",
        interval="bootstrap over latents",
        better="higher",
        shown=("structure.md",),
    ),
    Metric(
        name="mean_max_correlation_null_<width>",
        definition="mean_max_correlation with the reference's rows shifted to other documents: "
        "what K latents reach by chance",
        unit=CORRELATION,
        choice="references",
        denominator="reference_latents_<width>",
        interval="bootstrap over latents",
        shown=("structure.md",),
    ),
)
