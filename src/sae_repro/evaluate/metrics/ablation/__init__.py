"""Ablation sparsity: the number of the model's logits that one latent moves."""

from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.summary import Summary


def measure(first_pass: FirstPass) -> Summary:
    """ablation.parquet: the logits that single latents move."""
    from sae_repro.evaluate.metrics.ablation.logits import ablation_sparsity
    from sae_repro.params import model_hook

    frame, summary = ablation_sparsity(
        first_pass.subject(),
        first_pass.sae,
        model_hook(first_pass.hook),
        first_pass.codes,
        first_pass.passages,
        first_pass.study.seed,
        model_hook(first_pass.decodes_at),
    )
    first_pass.write(frame, "ablation")
    return summary
