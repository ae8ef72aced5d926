"""Explainability by word patterns: n-grams that predict when a latent fires."""

from sae_repro.evaluate.first_pass import FirstPass, corpus_of
from sae_repro.evaluate.summary import Summary


def measure(first_pass: FirstPass) -> Summary:
    """ngram.parquet: the word patterns of a sample of latents."""
    from sae_repro.concepts.halves import fit_documents
    from sae_repro.evaluate.metrics.ngram.patterns import explainability_ngram
    from sae_repro.evaluate.passages import last_activation
    from sae_repro.params import model_hook

    study, hook = first_pass.study, model_hook(first_pass.hook)
    device = study.settings.device
    activate = last_activation(first_pass.subject(), first_pass.sae, hook, device)
    fit_d = fit_documents(corpus_of(study), study.seed)
    frame, summary = explainability_ngram(
        activate,
        first_pass.canonical,
        first_pass.passages,
        first_pass.totals.fired_k,
        fit_d,
        study.seed,
    )
    first_pass.write(frame, "ngram")
    return summary
