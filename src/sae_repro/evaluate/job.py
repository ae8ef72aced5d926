"""The jobs that workers are handed: one evaluation, one reference SAE."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.cellstore import CellStore
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.files import digest, read_json, sha256_file

if TYPE_CHECKING:
    from sae_repro.evaluate.metrics.references.family import Family


@dataclass(frozen=True)
class EvaluateJob:
    """All that evaluating one SAE needs; pickles to a worker."""

    study: Evaluation
    sae: Path
    key: str
    """Path of the result in the store."""

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
class ReferenceJob:
    """Trains one reference into the store, so that no evaluation has to wait for it."""

    family: "Family"
    hook: str
    width: int

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Train it, unless it is there by now."""
        from sae_repro.evaluate.metrics.references.family import references

        references(self.family, self.hook, (self.width,))
        progress(1)


def job_of(evaluation: Evaluation, sae: Path) -> EvaluateJob:
    """The job for the trained SAE in the folder `sae`."""
    return EvaluateJob(evaluation, sae, evaluation_key(evaluation, sae))


def evaluation_key(evaluation: Evaluation, sae: Path) -> str:
    """Hash of everything that the evaluation of the SAE in the folder `sae` follows from."""
    return digest([evaluation.shared, _digest_of(sae)])


def _digest_of(folder: Path) -> str:
    """Hash of a trained cell, whatever its name."""
    summary = read_json(folder / "train.json")
    for label in ("cell", "contents"):
        summary.pop(label, None)
    weights = folder / "sae_weights.safetensors"
    return digest([summary, sha256_file(weights) if weights.is_file() else None])
