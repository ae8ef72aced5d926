"""The inputs of an evaluation, and the jobs that workers are handed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sae_repro.cellstore import CellStore
from sae_repro.files import digest, read_json, sha256_file
from sae_repro.params import Evaluate
from sae_repro.stage import StageContext


@dataclass(frozen=True)
class Evaluation:
    """How a study evaluates its SAEs, whichever they are."""

    settings: Evaluate
    seed: int
    shared: str
    """Hash of what every evaluation follows from, its SAE apart."""
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
        shared = {
            "evaluate": settings.model_dump(mode="json"),
            "seed": context.value("seed"),
            "extract": sha256_file(extract / "manifest.json"),
            "windows": sha256_file(extract / "windows" / "tokens.npy"),
            "subject": [sha256_file(path) for path in sorted(subject.glob("*.safetensors"))],
            "config": sha256_file(subject / "config.json"),
            "corpus": sha256_file(corpus / "tokens.npy"),
            "code": context.code("sae_repro.evaluate.evaluation"),
        }
        return cls(
            settings=settings,
            seed=context.value("seed"),
            shared=digest(shared),
            trainer=context.code("sae_repro.evaluate.metrics.references.family"),
            store=store.folder,
            corpus=corpus,
            subject=subject,
            activations=extract,
        )

    def family(self) -> "Family":
        """The references that its SAEs are compared with."""
        return Family(
            store=self.store,
            activations=self.activations,
            seed=self.seed,
            code=self.trainer,
            device=self.settings.device,
            threads=self.settings.threads,
        )

    def job(self, sae: Path) -> "EvaluateJob":
        """The job for the trained SAE in the folder `sae`."""
        return EvaluateJob(self, sae, digest([self.shared, _digest_of(sae)]))


@dataclass(frozen=True)
class EvaluateJob:
    """All that evaluating one SAE needs; pickles to a worker."""

    study: Evaluation
    sae: Path
    key: str
    """Where the store keeps the result."""

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Evaluate into the store, unless it is there by now."""
        with CellStore(self.study.store).making(self.key) as folder:
            if folder is not None:
                self.make(folder)
        progress(1)

    def make(self, folder: Path) -> None:
        """Evaluate into `folder`, which is there."""
        from sae_repro.evaluate.evaluation import evaluate_into

        evaluate_into(self.study, self.sae, folder)


@dataclass(frozen=True)
class Family:
    """Which references: everything that their weights follow from beside hook and width."""

    store: Path
    """Of finished cells."""
    activations: Path
    seed: int
    code: str
    """Hash of the code that trains a reference."""
    device: str
    threads: int


@dataclass(frozen=True)
class ReferenceJob:
    """Trains one reference into the store, so that no evaluation has to wait for it."""

    family: Family
    hook: str
    width: int

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Train it, unless it is there by now."""
        from sae_repro.evaluate.metrics.references.family import references

        references(self.family, self.hook, (self.width,))
        progress(1)


def _digest_of(folder: Path) -> str:
    """Hash of a trained cell, whatever its name."""
    summary = read_json(folder / "train.json")
    for label in ("cell", "contents"):
        summary.pop(label, None)
    weights = folder / "sae_weights.safetensors"
    return digest([summary, sha256_file(weights) if weights.is_file() else None])
