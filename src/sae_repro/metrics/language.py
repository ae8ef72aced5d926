"""Metrics that run the language model once more: word patterns, and logits after an ablation."""

from sae_repro.metrics.metric import FRACTION, Metric

PATTERNS = (
    "after Foote et al. 2023, arXiv:2305.19911; Gao et al. 2024, arXiv:2406.04093, section 4.4"
)
ABLATION = "Gao et al. 2024, arXiv:2406.04093, section 4.5"

LANGUAGE = (
    Metric(
        name="explainability_ngram_precision",
        definition="tokens on which a latent fires among those where its word patterns say so, "
        "mean over sampled latents",
        unit=FRACTION,
        source=PATTERNS,
        choice="ngram",
        denominator="ngram_latents_with_precision",
        interval="bootstrap over latents",
        better="higher",
        shown=("structure.md",),
    ),
    Metric(
        name="explainability_ngram_recall",
        definition="tokens that its word patterns find among those on which a latent fires, mean "
        "over sampled latents",
        unit=FRACTION,
        source=PATTERNS,
        choice="ngram",
        denominator="ngram_latents_with_recall",
        interval="bootstrap over latents",
        better="higher",
        shown=("structure.md",),
    ),
    Metric(
        name="ablation_sparsity",
        definition="(L1/L2)² / (V·16) of the logit differences when one latent is zeroed, over the "
        "vocabulary and 16 positions, each less its position's median",
        unit=FRACTION,
        source=ABLATION,
        choice="ablation",
        denominator="ablation_pairs",
        interval="bootstrap over latents",
        better="lower",
        shown=("structure.md",),
    ),
    Metric(
        name="ablation_effective_logits",
        definition="(L1/L2)² of ablation_sparsity's logit differences: how many logits one latent "
        "moves in effect",
        unit="logits",
        source=ABLATION,
        choice="ablation",
        denominator="ablation_pairs",
        interval="bootstrap over latents",
        better="lower",
    ),
)
