"""The inputs of every evaluation of a study: settings, folders, and a hash of all of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.cellstore import CellStore
from sae_repro.files import digest, sha256_file, sha256_folder
from sae_repro.params import Evaluate
from sae_repro.params.evaluate import BETWEEN_SEEDS
from sae_repro.stage import StageContext

if TYPE_CHECKING:
    from sae_repro.evaluate.metrics.references.family import Family


@dataclass(frozen=True)
class Evaluation:
    """The inputs of a study's evaluations that are the same for all its SAEs."""

    settings: Evaluate
    seed: int
    inputs: str
    """Hash of what every evaluation follows from, beside its settings and its SAE."""
    trainer: str
    """Hash of the code that trains references."""
    store: Path
    corpus: Path
    subject: Path
    activations: Path

    @classmethod
    def of(cls, context: StageContext, settings: Evaluate, store: CellStore) -> "Evaluation":
        """The evaluation with `settings`, in a stage that declares `seed`."""
        corpus, subject = context.artifacts("corpus"), context.artifacts("subject")
        extract = context.artifacts("extract")
        windows, config = extract / "windows", subject / "config.json"
        shared = {
            "seed": context.value("seed"),
            "extract": sha256_file(extract / "manifest.json"),
            # given activations have no windows, and no model
            "windows": sha256_folder(windows) if windows.is_dir() else None,
            "subject": [sha256_file(path) for path in sorted(subject.glob("*.safetensors"))],
            "config": sha256_file(config) if config.is_file() else None,
            # labels, splits and the tokenizer make concepts, also where no token has changed
            "corpus": sha256_folder(corpus),
            "code": context.code("sae_repro.evaluate.evaluation"),
        }
        return cls(
            settings=settings,
            seed=context.value("seed"),
            inputs=digest(shared),
            trainer=context.code("sae_repro.evaluate.metrics.references.family"),
            store=store.folder,
            corpus=corpus,
            subject=subject,
            activations=extract,
        )

    def for_cell(self, name: str) -> "Evaluation":
        """The evaluation of the cell `name`, whose metrics may be fewer."""
        return replace(self, settings=self.settings.for_cell(name))

    @property
    def common(self) -> "Evaluation":
        """The same without chosen metrics: what cells share in a process follows from no more."""
        return replace(self, settings=self.settings.model_copy(update={"metrics": ()}))

    @property
    def shared(self) -> str:
        """Hash of what every evaluation with these settings follows from, its SAE apart."""
        return digest([self.inputs, _of_one_sae(self.settings)])

    @property
    def shared_by_cells(self) -> str:
        """The same, whichever metrics are chosen."""
        return digest([self.inputs, _of_one_sae(self.common.settings)])

    def family(self) -> "Family":
        """The references that its SAEs are compared with."""
        from sae_repro.evaluate.metrics.references.family import Family

        return Family(
            store=self.store,
            activations=self.activations,
            seed=self.seed,
            code=self.trainer,
            device=self.settings.device,
            threads=self.settings.threads,
        )


def _of_one_sae(settings: Evaluate) -> dict[str, Any]:
    """The settings without what is measured between SAEs: it has a key of its own."""
    chosen = [name for name in settings.metrics if name not in BETWEEN_SEEDS]
    return {**settings.model_dump(mode="json"), "metrics": chosen}
