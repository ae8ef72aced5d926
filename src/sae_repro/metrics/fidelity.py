"""Fidelity: what the language model loses when x̂ takes the activation's place."""

from sae_repro.metrics.metric import Metric

NATS = "nats per target"
RECOVERED = "as loss recovered in Rajamanoharan et al. 2024, arXiv:2404.16014"

FIDELITY = (
    Metric(
        name="ce_clean",
        definition="cross-entropy of the untouched model",
        unit=NATS,
        denominator="fidelity_tokens",
        interval="bootstrap over documents",
    ),
    Metric(
        name="ce_sae",
        definition="cross-entropy with the activation replaced by x̂",
        unit=NATS,
        denominator="fidelity_tokens",
        interval="bootstrap over documents",
        better="lower",
        controls="sparse",
    ),
    Metric(
        name="ce_zero",
        definition="cross-entropy with the activation replaced by 0",
        unit=NATS,
        denominator="fidelity_tokens",
        interval="bootstrap over documents",
    ),
    Metric(
        name="ce_mean",
        definition="cross-entropy with the activation replaced by its mean over training tokens",
        unit=NATS,
        denominator="fidelity_tokens",
        interval="bootstrap over documents",
    ),
    Metric(
        name="ce_recovered_zero",
        definition="(ce_zero − ce_sae) / (ce_zero − ce_clean), never clipped; 1 for the identity",
        unit="ratio",
        source=RECOVERED,
        denominator="fidelity_tokens",
        interval="bootstrap over documents",
        better="higher",
        controls="sparse",
        shown=("metrics.json", "cells.md", "matched_l0.md"),
    ),
    Metric(
        name="ce_recovered_mean",
        definition="(ce_mean − ce_sae) / (ce_mean − ce_clean), never clipped",
        unit="ratio",
        source=RECOVERED,
        denominator="fidelity_tokens",
        interval="bootstrap over documents",
        better="higher",
        controls="sparse",
    ),
    Metric(
        name="kl",
        definition="mean KL(clean ‖ with x̂) of the next-token distributions",
        unit=NATS,
        denominator="fidelity_tokens",
        interval="bootstrap over documents",
        better="lower",
        controls="sparse",
        shown=("metrics.json", "cells.md"),
    ),
    Metric(
        name="ce_recovered_zero_unseen",
        definition="ce_recovered_zero over the targets predicted at a token whose prefix no "
        "training window begins with",
        unit="ratio",
        source=RECOVERED,
        denominator="fidelity_tokens_unseen",
        interval="bootstrap over documents",
        better="higher",
        controls="sparse",
    ),
    Metric(
        name="kl_unseen",
        definition="kl over the same targets: at the others the SAE was trained on the very "
        "activation that it replaces",
        unit=NATS,
        denominator="fidelity_tokens_unseen",
        interval="bootstrap over documents",
        better="lower",
        controls="sparse",
    ),
)
