"""The inputs of extraction, read from the folders of the stages before it."""

from pathlib import Path

from sae_repro.checkpoint.configuration import read_config, shape_of
from sae_repro.contents import check
from sae_repro.extract.checks import check_fit
from sae_repro.extract.extraction import Inputs, weights_seed
from sae_repro.files import read_json
from sae_repro.params import Extract
from sae_repro.readers.agreement import load_compared
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.subject import load_untrained


def layers_in(subject: Path) -> int:
    """Blocks of the model of artifacts/subject."""
    return shape_of(read_config(subject, "extract"), "extract").n_layers


def load_inputs(corpus: Path, subject: Path, settings: Extract, seed: int) -> Inputs:
    """Corpus and models of artifacts/corpus and artifacts/subject.

    StudyError where a file is not as it was written, or the model lacks a hook of `settings`.
    """
    check(corpus)
    check(subject)
    documents, device = TokenDocuments.load(corpus), settings.device
    model, _ = load_compared(
        subject, f"extract: {subject}", hooks=settings.model_hooks, device=device
    )
    check_fit(settings, model)
    weights = weights_seed(seed)
    return Inputs(
        model,
        documents,
        names={
            "model_name": read_json(subject / "subject.json")["name"],
            "dataset_path": documents.name,
        },
        untrained=(
            load_untrained(subject, weights, device=device) if settings.untrained_hooks else None
        ),
        embeddings=(
            load_untrained(subject, weights, device=device, embeddings=True)
            if settings.embeddings_hooks
            else None
        ),
    )
