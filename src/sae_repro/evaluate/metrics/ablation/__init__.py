"""How many of the model's logits one latent moves."""

from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.summary import Summary


def measure(first_pass: FirstPass) -> Summary:
    """ablation.parquet: how many logits single latents move."""
    from sae_repro.evaluate.metrics.ablation.logits import ablation_sparsity
    from sae_repro.evaluate.passages import Passages
    from sae_repro.params import model_hook

    hook, passages = model_hook(first_pass.hook), Passages.load(first_pass.store)
    frame, summary = ablation_sparsity(
        first_pass.subject(), first_pass.sae, hook, first_pass.codes, passages,
        first_pass.study.seed,
    )  # fmt: skip
    first_pass.write(frame, "ablation")
    return summary
