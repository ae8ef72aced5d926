"""Training of all cells side by side: at once, or round after round of `extract.buffer`.

With `extract.keep: buffer` one round is on disk beside the first one. All cells take its steps and
pause, then the next round is extracted in its place. A cell that goes on from its checkpoint has
the bits of one that was never stopped, so that it has the key and the bits that it has where all
rows are kept.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from sae_repro.cellstore import CellStore, bypassed
from sae_repro.errors import StudyError
from sae_repro.readers.joined import JoinedStore
from sae_repro.sidebyside import side_by_side
from sae_repro.stage import ROLLING
from sae_repro.train.job import CellJob


def check_alone(activations: JoinedStore) -> None:
    """StudyError where rounds are to be trained on and can't be had: before any of them is."""
    if not _rolls(activations):
        return
    if os.environ.get("SAE_REPRO_EXECUTOR", "loky") != "loky":
        raise StudyError(
            "extract.keep = buffer: cells are trained round after round on this machine; unset "
            "SAE_REPRO_EXECUTOR, or set extract.keep to all"
        )
    if bypassed():
        raise StudyError(
            "extract.keep = buffer: cells pause in the store between rounds; unset "
            "SAE_REPRO_NO_STORE, or set extract.keep to all"
        )


def train_all(jobs: Sequence[CellJob], store: CellStore, activations: JoinedStore) -> None:
    """Put the cells of `jobs` into the store."""
    if not _rolls(activations):
        side_by_side([(job, job.steps) for job in jobs], what="train", unit="step")
        return
    ends = {job.key: _ends(job) for job in jobs}
    rounds = len(activations.index("train").rounds)
    try:
        for stretch in range(max(map(len, ends.values()))):
            parts = [
                part
                for job in jobs
                if store.find(job.key) is None and (part := _part(job, ends[job.key], stretch))
            ]
            if not parts:
                continue
            if number := stretch % rounds:
                _extract_again(number, rounds)
            side_by_side(
                [(job, job.until or job.steps) for job in parts], what="train", unit="step"
            )
    finally:
        shutil.rmtree(ROLLING, ignore_errors=True)


def _rolls(activations: JoinedStore) -> bool:
    """Whether only the first round of the training activations was kept."""
    index = activations.index("train")
    return any(
        entry.get("round") and not (index.folder / entry["file"]).exists()
        for entry in index.entries
    )


def _ends(job: CellJob) -> list[int]:
    """The step at which each round ends, epoch after epoch; of what takes no steps 0."""
    if job.cell.kind != "trained":
        return [0]
    from sae_repro.training import Batches

    shards = job.store_of_rows.activations(job.hook, "train")
    return Batches(shards, job.settings.batch_size, job.steps, seed=0, cell_id="").round_ends


def _part(job: CellJob, ends: Sequence[int], stretch: int) -> CellJob | None:
    """What `job` has to do with this round; None where it has no step to take, or took them."""
    if stretch >= len(ends):
        return None
    if stretch == len(ends) - 1:
        return job
    from sae_repro.training.checkpoint import step_of_checkpoint

    begins = ends[stretch - 1] if stretch else 0
    done = step_of_checkpoint(job.checkpoint)
    return replace(job, until=ends[stretch]) if begins <= done < ends[stretch] else None


def _extract_again(number: int, rounds: int) -> None:
    """Have round `number`, counted from 0, in place of the one before; StudyError if that fails."""
    shown = f"round {number + 1} of {rounds}"
    print(f"train: {shown} of the activations", file=sys.stderr)
    command = [sys.executable, "-m", "sae_repro.extract.again", str(number), str(os.getpid())]
    try:
        failed = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        raise StudyError(
            "stopped from outside; what is finished is kept: run the same command to go on"
        ) from None
    if failed:
        raise StudyError(f"{shown}: could not be extracted, see above")
