"""The job of one cell with several seeds, as a worker is handed it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sae_repro.cellstore import CellStore
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.files import digest, read_json, write_json
from sae_repro.progress import say

if TYPE_CHECKING:
    from sae_repro.evaluate.held_out import Batch

SUMMARY = "consistency.json"


@dataclass(frozen=True)
class ConsistencyJob:
    """All that comparing the seeds of one cell needs; pickles to a worker."""

    name: str
    """The cell's name for people."""
    study: Evaluation
    saes: Mapping[str, tuple[Path, Path]]
    """By place, the folders of the trained SAE and of its evaluation."""
    key: str
    """Path of the result in the store."""

    def reads(self) -> list[Path]:
        """What it needs of the study's folder."""
        return [self.study.activations, *(path for pair in self.saes.values() for path in pair)]

    def writes(self) -> list[Path]:
        """What it leaves in the study's folder."""
        return [self.study.store / self.key]

    def __call__(self, progress: Callable[[int], None]) -> str:
        """Compare, unless the result is in the store by now; a line on it."""
        store = CellStore(self.study.store)
        with store.making(self.key) as folder:
            if folder is not None:
                self._write(folder)
        progress(1)
        return line_of(self.name, store.folder / self.key)

    def make(self, folder: Path) -> None:
        """Write the result into `folder`, which is there."""
        self._write(folder)
        say(line_of(self.name, folder))

    def _write(self, folder: Path) -> None:
        import pandas as pd

        from sae_repro.autoencoders import levelled, load
        from sae_repro.autoencoders.partners import Directions
        from sae_repro.evaluate.consistency.activations import Activations
        from sae_repro.evaluate.consistency.measure import LARGEST, measure
        from sae_repro.evaluate.held_out import validation_batches
        from sae_repro.numerics.determinism import prepare
        from sae_repro.readers.joined import LevelledStore

        settings = self.study.settings
        prepare(device=settings.device, threads=settings.threads)
        store = LevelledStore(self.study.activations)
        hook = read_json(next(iter(self.saes.values()))[1] / "metrics.json")["hook"]
        levels = store.levels(hook)
        finished = {
            place: (levelled(load(trained, device=settings.device), levels), _alive(evaluated))
            for place, (trained, evaluated) in self.saes.items()
            if read_json(evaluated / "metrics.json")["status"] == "ok"
        }
        members = {
            place: Directions.of(sae.weights, alive) for place, (sae, alive) in finished.items()
        }
        activations = None
        if len(members) > 1 and all(0 < len(m.latent) <= LARGEST for m in members.values()):

            def batches() -> "Iterator[Batch]":
                return validation_batches(store, hook, settings.batch_size, settings.device)

            saes, latents = zip(*finished.values(), strict=True)
            rows = store.index("validation").rows
            activations = Activations(saes, latents, batches, rows, self.study.seed)
        found = measure(members, activations, self.study.seed)
        found.pairs.to_parquet(folder / "pairs.parquet", index=False, compression="zstd")
        found.curve.to_parquet(folder / "curve.parquet", index=False, compression="zstd")
        stability = [
            pd.DataFrame({"place": place, "latent": m.latent, "stability": found.stability[place]})
            for place, m in members.items()
        ]
        columns = ["place", "latent", "stability"]
        frame = pd.concat(stability) if stability else pd.DataFrame(columns=columns)
        frame.to_parquet(folder / "stability.parquet", index=False, compression="zstd")
        summary = found.summary
        write_json(
            folder / SUMMARY,
            {
                "key": self.key,
                "metrics": summary.metrics,
                "counts": summary.counts,
                "intervals": summary.intervals,
            },
        )


def _alive(evaluated: Path) -> "np.typing.NDArray[np.int64]":
    """The latents that fire on the held-out tokens."""
    import pandas as pd

    fired = pd.read_parquet(evaluated / "latents.parquet", columns=["n_fired"])["n_fired"]
    return np.flatnonzero(fired.to_numpy() > 0)


def job_of(
    name: str,
    study: Evaluation,
    code: str,
    saes: Mapping[str, tuple[Path, Path]],
    keys: Mapping[str, str],
) -> ConsistencyJob:
    """The job of a cell; `code` hashes what computes it, `keys` are its evaluations' by place."""
    return ConsistencyJob(name, study, saes, digest(["consistency", code, [*keys.items()]]))


def line_of(name: str, folder: Path) -> str:
    """A line on the result in `folder`."""
    metrics = read_json(folder / SUMMARY)["metrics"]
    if metrics["pw_mcc"] is None:
        return f"evaluate: {name}: no two seeds to compare"
    return (
        f"evaluate: {name}: PW-MCC {metrics['pw_mcc']:.3f} (random directions "
        f"{metrics['pw_mcc_null']:.3f}), shared {metrics['shared_fraction']:.1%}"
    )
