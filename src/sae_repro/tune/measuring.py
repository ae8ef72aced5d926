"""A trial's SAE on the tuning documents: sparsity, reconstruction and dead latents, nothing more.

No trial sees a validation document, so that what is reported there was not chosen there. A cell
that is adopted is evaluated like any other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.cellstore import CellStore
from sae_repro.errors import StudyError
from sae_repro.files import digest, read_json, write_json
from sae_repro.params import Cell, Evaluate
from sae_repro.params.tune import AT_L0, L0_OFF
from sae_repro.readers.joined import JoinedStore, LevelledStore
from sae_repro.readers.shards import ActivationStore

if TYPE_CHECKING:
    from sae_repro.autoencoders import SAE
    from sae_repro.evaluate.held_out import Batch
    from sae_repro.train.job import CellJob

SPLIT = "tuning"

SLOPE = -0.5
"""Of log FVU over log L0, where L0 misses its target by a little. At the largest deviation that is
let pass by default, 5 %, it is worth 2.5 % of FVU. It is flatter than what is measured: between the
L0s of the recorded search (tune/tuning.csv: 8, 16 and 32) the recipes that aim at an L0 (vanilla,
JumpReLU, gated) have −0.6 to −1.1 as they are, so that an L0 5 % above its target leaves FVU up to
3 % too low, and one below it as much too high. Recipes with k miss it by less than 1 %. Another
value would be another search."""

MEASURED = (
    "l0", "dead_fraction_never", "dead_fraction_below", "dead_fraction_below_relative",
    "density_mean", "density_median", "density_max", "fvu", "explained_variance",
    "squared_error_per_token", "mse_per_dim", "mae_per_dim", "cosine", "cosine_spread",
    "relative_norm",
)  # fmt: skip
"""Metrics of every trial, as `evaluate` defines them; with a target L0 also AT_L0 and L0_OFF."""


@dataclass(frozen=True)
class Measuring:
    """How all trials of a study are measured; pickles to a worker."""

    settings: Evaluate
    code: str
    """Hash of this module's code and of what it imports."""

    def key(self, job: "CellJob") -> str:
        """Hash of everything that the measurement of a trained cell follows from."""
        store = JoinedStore(job.activations)
        shards = store.activations(job.hook, SPLIT), store.index(SPLIT)
        used = {"batch_size", "dead_threshold", "threads", "device"}
        return digest(
            [job.key, [part.checksum for part in shards], self.code,
             self.settings.model_dump(mode="json", include=used)]
        )  # fmt: skip

    def measure(self, job: "CellJob") -> dict[str, Any]:
        """The metrics of a trained cell, from the store where they are there."""
        store, key = CellStore(job.store), self.key(job)
        with store.making(key) as folder:
            if folder is not None:
                write_json(folder / "metrics.json", self._measured(job))
        return {**read_json(store.folder / key / "metrics.json"), "evaluation": key}

    def _measured(self, job: "CellJob") -> dict[str, Any]:
        from sae_repro.autoencoders import levelled, load
        from sae_repro.numerics.determinism import prepare

        folder = job.store / job.key
        trained = read_json(folder / "train.json")
        nothing: dict[str, Any] = {"metrics": {}, "counts": {}}
        if trained["status"] != "ok":
            return {"status": trained["status"], "reason": trained["reason"], **nothing}
        settings = self.settings
        prepare(device=settings.device, threads=settings.threads)
        store = LevelledStore(job.activations)
        sae = levelled(load(folder, device=settings.device), store.levels(job.hook))

        def batches(hook: str) -> Iterator["Batch"]:
            return tuning_batches(store, hook, settings.batch_size, settings.device)

        target = job.cell.target_hook
        measured = measure(
            sae,
            lambda: batches(job.hook),
            settings.dead_threshold,
            None if target is None else lambda: batches(target),
        )
        if measured is None:
            reason = "the reconstruction is not finite on the tuning documents"
            return {"status": "failed", "reason": reason, **nothing}
        metrics, counts = measured
        counts["training_tokens"] = trained["tokens"]
        return {"status": "ok", "metrics": metrics | at_target(job.cell, metrics), "counts": counts}


def check_tuning_split(activations: Path) -> None:
    """StudyError where no tuning activations were extracted."""
    if not ActivationStore(activations).manifest["tokens"].get(SPLIT):
        raise StudyError(
            "tune: the corpus has no tuning documents, and settings are never chosen on those that "
            "results are reported on; set corpus.tuning (0.02, say) and extract.n_tuning_tokens in "
            "params.yaml, then `dvc repro extract`: documents come out of training, so that cells "
            "are trained again"
        )


def tuning_batches(store: ActivationStore, hook: str, size: int, device: str) -> Iterator["Batch"]:
    """(x [n, D] fp32, index [n, 3]) over all tuning activations."""
    from sae_repro.evaluate.held_out import batches_of

    return batches_of(store, hook, SPLIT, size, device)


def measure(
    sae: "SAE",
    batches: Callable[[], Iterator["Batch"]],
    dead_threshold: float,
    targets: Callable[[], Iterator["Batch"]] | None = None,
) -> tuple[dict[str, float | None], dict[str, int]] | None:
    """(metrics by name, counts) of an SAE over `batches`; None where x̂ is not finite.

    `targets` are those at a transcoder's target hook.
    """
    from math import isfinite

    from sae_repro.evaluate.held_out import HeldOut
    from sae_repro.evaluate.reconstruction import accumulate, summarise

    held_out = HeldOut.of(targets or batches, sae.d_out)
    totals = accumulate(sae, batches(), held_out, targets=targets and targets())
    if not isfinite(float(totals.document_error.sum())):
        return None
    counts = {
        "tokens": totals.tokens,
        "documents": len(totals.document_error),
        "latents": len(totals.fired_k),
        "latents_alive": int((totals.fired_k > 0).sum()),
    }
    metrics = summarise(totals, sae.d_out, dead_threshold)
    return {name: metrics[name] for name in MEASURED}, counts


def at_target(cell: Cell, metrics: dict[str, float | None]) -> dict[str, float | None]:
    """FVU read at the cell's target L0, and by how much L0 misses it; nothing without a target.

    FVU moves along a straight line in log L0 and log FVU, of slope `SLOPE`.
    """
    target, l0, fvu = cell.l0_target, metrics["l0"], metrics["fvu"]
    if target is None or not l0 or fvu is None:
        return {}
    return {AT_L0: fvu * (target / l0) ** SLOPE, L0_OFF: abs(l0 / target - 1)}
