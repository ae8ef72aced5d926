"""An evaluated SAE of a study, with the artifacts that say what its latents fire on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.autoencoders import SAE, load
from sae_repro.contents import check
from sae_repro.errors import StudyError
from sae_repro.files import read_object
from sae_repro.params.joint import is_joint
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import GIVEN_ROWS, ActivationStore

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Source:
    """One SAE of a study: `cell`, or `cell/seed-<n>`."""

    study: Path
    name: str

    @property
    def evaluated(self) -> Path:
        """Its folder in artifacts/evaluate."""
        return self.study / "artifacts/evaluate" / self.name

    @cached_property
    def sae(self) -> SAE:
        """The SAE as it is used."""
        return load(self.study / "artifacts/train" / self.name)

    @cached_property
    def training(self) -> dict[str, Any]:
        """train.json: choices, seed, tokens."""
        return read_object(self.study / "artifacts/train" / self.name / "train.json")

    @cached_property
    def measured(self) -> dict[str, Any]:
        """metrics.json: metrics, intervals, counts."""
        return read_object(self.evaluated / "metrics.json")

    @property
    def hook(self) -> str:
        """The hook whose activations it reconstructs."""
        return str(self.measured["hook"])

    @cached_property
    def subject(self) -> dict[str, Any]:
        """subject.json: the language model's name, and how it came here."""
        return read_object(self.study / "artifacts/subject/subject.json")

    @cached_property
    def corpus(self) -> TokenDocuments:
        """The documents, and the tokenizer that made their tokens."""
        return TokenDocuments.load(self.study / "artifacts/corpus")

    @cached_property
    def store(self) -> ActivationStore:
        """The activations."""
        return ActivationStore(self.study / "artifacts/extract")

    def table(self, name: str) -> "pd.DataFrame":
        """A table of its evaluation: `latents`, `contexts`."""
        import pandas as pd

        return pd.read_parquet(self.evaluated / f"{name}.parquet")


def source(study: Path, name: str) -> Source:
    """The SAE `name` of `study`, found unchanged; StudyError where it was not evaluated."""
    found = Source(study, name)
    if not (found.evaluated / "metrics.json").is_file():
        raise StudyError(
            f"{name}: no evaluated SAE in {study / 'artifacts/evaluate'}; `sae-repro cells` lists "
            "the cells and which are evaluated, `dvc repro evaluate` evaluates them"
        )
    for stage in ("corpus", "subject", f"evaluate/{name}"):
        check(study / "artifacts" / stage)
    check(study / "artifacts/extract", "manifest.json")
    if found.measured["status"] != "ok":
        raise StudyError(f"{name}: {found.measured['status']}: it has no latents to show")
    if not (found.evaluated / "latents.parquet").is_file():
        raise StudyError(
            f"{name}: several SAEs: name one, such as {name}/seed-0 (`sae-repro cells` lists them)"
        )
    return found


def check_tokens(source: Source) -> None:
    """StudyError where latents fire on no tokens, or belong to several hooks at once."""
    if is_joint(source.hook):
        raise StudyError(
            f"{source.name}: a crosscoder of {source.hook}, and the format has latents of one "
            "hook; leave --format neuronpedia out, or choose a cell of one hook"
        )
    if source.store.manifest["pooling"] == GIVEN_ROWS:
        raise StudyError(
            f"{source.name}: activations were given, and the format has tokens of a language "
            "model; leave --format neuronpedia out"
        )
    if source.store.manifest["pooling"] != "token":
        raise StudyError(
            f"{source.name}: activations are means over documents, and the format has activations "
            "of tokens; set extract.pooling: token, or leave --format neuronpedia out"
        )
