"""Metrics as tables and figures name them: a short label, the unit, and which direction is better.

Apart from the rows of the registry, so that a change of wording evaluates nothing again.
"""

import re
from collections.abc import Iterable, Sequence

from sae_repro.metrics import METRICS, Metric, find

LABELS = {
    "l0": "L0",
    "fvu": "FVU",
    "fvu_unseen": "FVU, unseen prefixes",
    "cosine": "cosine of x and x̂",
    "relative_norm": "relative norm",
    "ce_recovered_zero": "CE recovered (zero)",
    "ce_recovered_zero_unseen": "CE recovered (zero), unseen prefixes",
    "kl": "KL divergence",
    "kl_unseen": "KL divergence, unseen prefixes",
    "dead_fraction_never": "dead: never fires",
    "dead_fraction_below": "dead: below threshold",
    "density_median": "median density",
    "monosemantic_fraction": "monosemantic",
    "monosemantic_fraction_alive": "monosemantic of alive",
    "monosemantic_fraction_scored": "monosemantic of scored",
    "monosemantic_mean": "mean M of alive",
    "coverage": "coverage φ ≥ .5",
    "hole_rate": "hole rate",
    "absorption_rate": "absorption rate",
    "childless_recall": "childless recall",
    "splitting_mean": "splitting",
    "fragmented_fraction": "fragmented concepts",
    "recall_at_p80_mean": "recall at precision .8",
    "probe_auc_<k>": "probe AUC, <k> latents",
    "probe_loss": "probe loss",
    "decoder_max_cosine": "nearest atom's cosine",
    "decoder_near_copy_fraction": "near copies",
    "description_length": "description length",
    "mean_max_correlation_<width>": "max correlation, K = <width>",
    "mean_max_correlation_null_<width>": "its null, K = <width>",
    "pw_mcc": "PW-MCC",
    "pw_mcc_null": "PW-MCC, random directions",
    "shared_fraction": "shared latents",
    "activation_mcc": "activation MCC",
    "activation_mcc_null": "activation MCC, shuffled",
    "explainability_ngram_precision": "word patterns: precision",
    "explainability_ngram_recall": "word patterns: recall",
    "ablation_sparsity": "ablation: logits moved",
    "steering_over_random": "steering by a concept's latent, over random directions",
    "steering_next_over_random": "steering by the latent before a concept, over random directions",
    "steering_means_over_random": "difference of means, over random directions",
    "steering_next_means_over_random": "difference of means before it, over random directions",
    "steering_prompt_over_random": "prompt, over random directions",
    "steering_random_latent_over_random": "random latents, over random directions",
    "steering_zeroed": "latent set to 0",
    "steering_next_zeroed": "latent before it set to 0",
    "matched_cosine": "matched cosine",
    "f1": "F1",
    "parent_recall": "parent recall",
    "parent_childless_recall": "parent recall, no child",
    "child_parent_cosine": "cosine of child and parent",
    "revived_fraction": "revived",
    "settled": "loss settled",
}
"""By a row's own name. A metric that no table or figure shows is called by its name."""

ARROWS = {"lower": "↓", "higher": "↑", "none": ""}
DIMENSIONLESS = ("ratio", "cosine", "correlation")
"""Units that headings leave out; fractions say that they are, for they could be percents."""
KEY = "↓ lower is better, ↑ higher"


def label(name: str, rows: Iterable[Metric] = METRICS) -> str:
    """The label of a concrete name: "probe AUC, 5 latents"; an unknown name as it is."""
    metric = find(name, rows)
    if metric is None:
        return name
    text = LABELS.get(metric.base, name)
    return text.replace(metric.parameter or "<>", metric.parameter_of(name) or "")


def heading(name: str, rows: Sequence[Metric] = METRICS, of: str = "tokens") -> str:
    """Label, unit and direction: "KL divergence (nats per target) ↓"; an unknown name as it is.

    `of`: what the SAE reads, tokens or rows: "L0 (latents per row)".
    """
    metric = find(name, rows)
    if metric is None:
        return name
    unit = "" if metric.unit in DIMENSIONLESS else f" ({_counted_in(metric.unit, of)})"
    return f"{label(name, rows)}{unit} {ARROWS[metric.better]}".rstrip()


def _counted_in(unit: str, of: str) -> str:
    return re.sub(r"\btoken\b", of.removesuffix("s"), re.sub(r"\btokens\b", of, unit))
