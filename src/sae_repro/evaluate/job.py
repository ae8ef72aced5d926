"""The jobs that workers are handed: one evaluation, one reference SAE."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.cellstore import CellStore
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.files import digest, read_json, sha256_file
from sae_repro.progress import measured, say

if TYPE_CHECKING:
    from sae_repro.evaluate.metrics.references.family import Family


@dataclass(frozen=True)
class EvaluateJob:
    """All that evaluating one SAE needs; pickles to a worker."""

    name: str
    """The SAE's name for people; the evaluation doesn't depend on it."""
    study: Evaluation
    sae: Path
    key: str
    """Path of the result in the store."""

    @property
    def hook(self) -> str:
        """Where the SAE's activations are read."""
        return str(read_json(self.sae / "train.json")["hook"])

    @property
    def target(self) -> str | None:
        """The target hook of a transcoder."""
        target: str | None = read_json(self.sae / "train.json")["choices"].get("target_hook")
        return target

    def reads(self) -> list[Path]:
        """What it needs of the study's folder, if it is there."""
        study, needed = self.study, [self.sae]
        if study.settings.concepts is not None:
            needed.append(Path(study.settings.concepts.path))
        if "references" in study.settings.metrics and self.hook in _hooks(study):
            family = study.family()
            needed += [family.place(self.hook, width) for width in study.settings.references]
        return [study.corpus, study.subject, study.activations, *needed]

    def writes(self) -> list[Path]:
        """What it leaves in the study's folder."""
        return [self.study.store / self.key]

    def __call__(self, progress: Callable[[int], None]) -> str:
        """Evaluate into the store, unless it is there by now; a line on it."""
        from sae_repro.evaluate.evaluation import evaluate_into

        store = CellStore(self.study.store)
        with store.making(self.key) as folder:
            if folder is not None:
                evaluate_into(self.study, self.sae, folder)
        progress(1)
        return line_of(self.name, store.folder / self.key)

    def make(self, folder: Path) -> None:
        """Evaluate into `folder`, which is there."""
        from sae_repro.evaluate.evaluation import evaluate_into

        evaluate_into(self.study, self.sae, folder)
        say(line_of(self.name, folder))


@dataclass(frozen=True)
class ReferenceJob:
    """Trains one reference into the store, so that no evaluation has to wait for it."""

    family: "Family"
    hook: str
    width: int

    def reads(self) -> list[Path]:
        """What it needs of the study's folder."""
        return [self.family.activations]

    def writes(self) -> list[Path]:
        """What it leaves in the study's folder."""
        return [self.family.place(self.hook, self.width)]

    def __call__(self, progress: Callable[[int], None]) -> str:
        """Train it, unless it is there by now."""
        from sae_repro.evaluate.metrics.references.family import references

        references(self.family, self.hook, (self.width,))
        progress(1)
        return f"evaluate: reference of {self.width} latents on {self.hook}"


def _hooks(study: Evaluation) -> Collection[str]:
    hooks: dict[str, object] = read_json(study.activations / "manifest.json")["hooks"]
    return hooks


def job_of(evaluation: Evaluation, sae: Path, name: str) -> EvaluateJob:
    """The job for the trained SAE in the folder `sae`, called `name` to people."""
    return EvaluateJob(name, evaluation, sae, evaluation_key(evaluation, sae))


def line_of(name: str, folder: Path) -> str:
    """A line on the evaluation in `folder`."""
    summary = read_json(folder / "metrics.json")
    if summary["status"] != "ok":
        return f"evaluate: {name}: {summary['status']}: {summary['reason']}"
    without = "".join(f"; {line}" for line in summary.get("not_measured", ()))
    return f"evaluate: {name}: {measured(summary['metrics'])}{without}"


def evaluation_key(evaluation: Evaluation, sae: Path) -> str:
    """Hash of everything that the evaluation of the SAE in the folder `sae` follows from."""
    return digest([evaluation.shared, _digest_of(sae)])


def _digest_of(folder: Path) -> str:
    """Hash of a trained cell, whatever its name."""
    summary = read_json(folder / "train.json")
    summary.pop("cell", None)
    weights = folder / "sae_weights.safetensors"
    return digest([summary, sha256_file(weights) if weights.is_file() else None])
