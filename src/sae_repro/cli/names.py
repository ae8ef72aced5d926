"""Names on the hub: short ones of models and data sets that are often used, and commits."""

from typing import Literal

from sae_repro.errors import StudyError, did_you_mean, shown
from sae_repro.hub import commit_of

MODELS = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "pythia-70m": "EleutherAI/pythia-70m",
    "pythia-160m": "EleutherAI/pythia-160m",
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M",
}
DATASETS = {
    "ag_news": "fancyzhx/ag_news",
    "openwebtext-10k": "stas/openwebtext-10k",
    "pile-10k": "NeelNanda/pile-10k",
    "tinystories": "roneneldan/TinyStories",
}


def model_name(name: str) -> str:
    """The repository of a model of the hub; a name that is not short stays as it is."""
    return MODELS.get(name.lower(), name)


def dataset_name(name: str) -> str:
    """The repository of a data set of the hub; StudyError for a short name that is none here."""
    found = DATASETS.get(name.lower(), name)
    if found.count("/") != 1:
        raise StudyError(
            f"--dataset {shown(name)}: a data set of the hub is owner/name, or one of "
            f"{', '.join(DATASETS)} (files here: --text){did_you_mean(name, DATASETS)}"
        )
    return found


def pinned_commit(kind: Literal["model", "dataset"], name: str, revision: str | None) -> str:
    """The commit of a branch or tag, None the newest; StudyError, with the way without the hub."""
    option = "--revision, --d-model and --n-layers" if kind == "model" else "--dataset-revision"
    try:
        return commit_of(kind, name, revision)
    except StudyError as error:
        raise StudyError(f"{error}; or give its commit (40 hex digits): {option}") from None
