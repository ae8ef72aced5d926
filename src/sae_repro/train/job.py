"""One cell's folder as a piece of work: its key, and the maker of its kind of cell."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_repro.cellstore import CellStore
from sae_repro.costs import measuring, path_of
from sae_repro.files import digest, read_json
from sae_repro.params import Cell, Train
from sae_repro.params.joint import hooks_in, is_joint
from sae_repro.progress import measured, say
from sae_repro.readers.joined import JoinedStore
from sae_repro.readers.shards import ActivationStore
from sae_repro.train.paused import Paused


@dataclass(frozen=True)
class CellJob:
    """All that training one cell needs; pickles to a worker."""

    name: str
    """The SAE's name for people; its results don't depend on it."""
    cell: Cell
    settings: Train
    hook: str
    seed: int
    key: str
    activations: Path
    store: Path
    checkpoint: Path
    metadata: Mapping[str, Any]
    rolling: Path | None = None
    """Where the round of training activations is that is not kept, if `extract.keep` is buffer."""
    until: int | None = None
    """The step at which it pauses, if it is no last round's."""

    @property
    def store_of_rows(self) -> JoinedStore:
        """The activations."""
        return JoinedStore(self.activations, self.rolling)

    @property
    def steps(self) -> int:
        """Of its training, for progress; where nothing is trained, those that it would have."""
        rows = self.store_of_rows.activations(self.hook, "train").rows
        return self.cell.steps(self.settings.batch_size, self.settings.epochs, rows)

    def reads(self) -> list[Path]:
        """What it needs of the study's folder, if it is there; hooks of other cells left out."""
        hooks = ActivationStore(self.activations).manifest["hooks"]
        own = {self.hook, self.cell.target_hook}
        others = set() if self.hook not in hooks else set(hooks) - own
        kept = [path for path in self.activations.iterdir() if path.name not in others]
        imported = self.cell.import_
        return [*kept, *([Path(imported)] if imported else [])]

    def writes(self) -> list[Path]:
        """What it leaves in the study's folder; a checkpoint that is gone is none."""
        return [self.store / self.key, path_of(self.store, self.key), self.checkpoint]

    def __call__(self, progress: Callable[[int], None]) -> str | None:
        """Make the cell into the store, unless it is there by now; a line on it.

        One that pauses leaves a checkpoint alone.
        """
        try:
            with CellStore(self.store).making(self.key) as folder:
                if folder is not None:
                    make_measured(self, folder, progress)
        except Paused:
            return None
        return line_of(self.name, self.store / self.key)

    def make(self, folder: Path) -> None:
        """Make it into `folder`, without the store."""
        make_measured(self, folder, lambda step: None)
        say(line_of(self.name, folder))


def line_of(name: str, folder: Path) -> str:
    """A line on the SAE in `folder`: its steps, and its last logged training batch; remarks."""
    record = read_json(folder / "train.json")
    if record["status"] != "ok":
        return f"train: {name}: {record['status']}: {record['reason']}"
    if not record["steps"]:
        return f"train: {name}: {record['choices'].get('baseline') or 'imported'}, no steps"
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    remarks = "".join(f"; {remark}" for remark in record["unreached"])
    return f"train: {name}: {record['steps']:,} steps, last batch {measured(last)}{remarks}"


def cell_key(
    cell: Cell,
    settings: Train,
    hook: str,
    seed: int,
    store: ActivationStore,
    metadata: Mapping[str, Any],
    code: str,
) -> str:
    """Hash of everything a cell's folder follows from; metrics.jsonl makes logging a part of it."""
    read = {"activations": _facts(store, hook, "train", "calibration")}
    if cell.target_hook is not None:
        read["targets"] = _facts(store, cell.target_hook, "train")
    return digest(
        {
            "cell": cell.identity(),
            "train": settings.model_dump(mode="json"),
            "hook": hook,
            "seed": seed,
            **read,
            "metadata": dict(metadata),
            "code": code,
        }
    )


def _facts(store: ActivationStore, hook: str, *splits: str) -> dict[str, Any]:
    """The checksums of a hook's `splits`, and what is measured over its training rows.

    Of several hooks side by side, of each: a scale of its own follows from it.
    """
    if is_joint(hook):
        return {one: _facts(store, one, *splits) for one in hooks_in(hook)}
    return {
        **{split: store.activations(hook, split).checksum for split in splits},
        "rms": store.rms(hook),
        "median_norm": store.median_norm(hook),
        "mean": store.mean(hook).tolist(),
    }


def make_measured(job: CellJob, folder: Path, progress: Callable[[int], None]) -> None:
    """As `make_into`; what a training takes is noted beside the store."""
    if job.cell.kind != "trained":
        make_into(job, folder, progress)
        return
    path = path_of(job.store, job.key)
    with measuring(path, job.settings.device, resumes=job.checkpoint.exists()) as tick:

        def watched(step: int) -> None:
            tick()
            progress(step)

        make_into(job, folder, watched)


def make_into(job: CellJob, folder: Path, progress: Callable[[int], None]) -> None:
    """Write the cell's folder by the maker of its kind."""
    match job.cell.kind:
        case "imported":
            from sae_repro.train.makers.imported import make
        case "baseline":
            from sae_repro.train.makers.baseline import make
        case _:
            from sae_repro.train.makers.trained import make
    make(job, folder, progress)
