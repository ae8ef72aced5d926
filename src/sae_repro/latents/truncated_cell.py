"""Truncations of a study's cells, beside the cells that were trained for one of them alone.

Each SAE is measured on the study's validation activations, with the batches and facts of the stage
`evaluate`: the whole code has the metric `fvu` of its metrics.json.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sae_repro.autoencoders import SAE, batchtopk_threshold, levelled, load
from sae_repro.autoencoders.activations import pre_activations
from sae_repro.contents import check, check_if_sealed
from sae_repro.errors import StudyError, did_you_mean, shown
from sae_repro.evaluate.held_out import batches_of, held_out, validation_batches
from sae_repro.files import read_object
from sae_repro.latents.truncation import (
    Cut,
    Truncation,
    above_thresholds,
    first_latents,
    measured,
    strongest,
)
from sae_repro.params import Cell, Study, saes_by_name
from sae_repro.readers.joined import LevelledStore

By = Literal["k", "prefix"]
CALIBRATION_BATCH = 4096


@dataclass(frozen=True)
class Asked:
    """Rising k' and l to cut at; None: powers of two up to the whole code, and that."""

    k: tuple[int, ...] | None = None
    prefix: tuple[int, ...] | None = None

    @property
    def by(self) -> tuple[By, ...]:
        """Both where neither is given."""
        if (self.k is None) == (self.prefix is None):
            return "k", "prefix"
        return ("prefix",) if self.k is None else ("k",)


@dataclass(frozen=True)
class TrainedSAE:
    """An SAE of a cell that finished."""

    cell: str
    place: str
    """`seed-<n>`, or `.` of a cell with one SAE."""
    settings: Cell
    folder: Path
    record: Mapping[str, Any]
    """Its train.json."""

    @property
    def name(self) -> str:
        """`cell`, or `cell/seed-<n>`."""
        return self.cell if self.place == "." else f"{self.cell}/{self.place}"

    @property
    def seed(self) -> int:
        """The cell's seed, or its own of several."""
        return self.settings.seed if self.place == "." else int(self.place.removeprefix("seed-"))

    def read_for(self, store: LevelledStore) -> SAE:
        """The SAE, for activations of a common scale; StudyError where it does not fit them."""
        hook = self.where[0]
        sae = levelled(load(self.folder), store.levels(hook))
        if store.d_in(hook) != sae.d_in:
            raise StudyError(
                f"{self.name}: reads {sae.d_in} dimensions, artifacts/extract has "
                f"{store.d_in(hook)} of {hook}; run `dvc repro`"
            )
        return sae

    @property
    def where(self) -> tuple[Any, ...]:
        """(hook, target hook) that it reads and predicts."""
        return self.record["hook"], self.record["choices"].get("target_hook")


@dataclass(frozen=True)
class Curve:
    """The truncations of one SAE, one way."""

    sae: TrainedSAE
    by: By
    truncations: Sequence[Truncation]


def saes_named(study: Path, cells: Mapping[str, Cell], name: str) -> tuple[list[TrainedSAE], str]:
    """(the finished SAEs that `name`, a cell or cell/seed-<n>, means; a note on failed seeds).

    StudyError that lists near names where there is none, for one that is not trained, and where
    none finished.
    """
    known = saes_by_name(cells)
    if name in cells:
        places = dict.fromkeys(cells[name].members(), name)
    elif name in known:
        cell, place = name.rsplit("/", 1)
        places = {place: cell}
    else:
        raise StudyError(
            f"{shown(name)}: no such cell; `sae-repro cells` lists them"
            f"{did_you_mean(name, [*cells, *known])}"
        )
    found: list[TrainedSAE] = []
    failed: list[TrainedSAE] = []
    for place, cell in places.items():
        folder = study / "artifacts/train" / cell / place
        if not (folder / "train.json").is_file():
            raise StudyError(
                f"{cell if place == '.' else f'{cell}/{place}'}: not trained yet ({folder}: no "
                "SAE); run `dvc repro` first"
            )
        check(folder)
        record = read_object(folder / "train.json")
        sae = TrainedSAE(cell, place, cells[cell].members()[place], folder, record)
        (found if record["status"] == "ok" else failed).append(sae)
    if not found:
        reason = failed[0].record.get("reason", failed[0].record["status"])
        raise StudyError(
            f"{failed[0].name}: its training failed ({shown(reason, 200)}); choose another cell, "
            "or change its settings and run `dvc repro`"
        )
    note = "".join(f"{sae.name}: its training failed, left out\n" for sae in failed)
    return found, note.rstrip()


def curves(
    study: Study,
    folder: Path,
    sae: TrainedSAE,
    asked: Asked,
    progress: Callable[[int], object] = lambda tokens: None,
) -> list[Curve]:
    """The truncations that are `asked` of one SAE of the study in `folder`, all in one pass.

    StudyError for a k' or l beyond the SAE's own, before anything is encoded.
    """
    store = LevelledStore(folder / "artifacts/extract")
    hook, target = sae.where
    size, device = study.evaluate.batch_size, "cpu"
    loaded = sae.read_for(store)
    cuts = {by: _cut(by, sae, loaded, asked, store) for by in asked.by}
    found = measured(
        loaded,
        validation_batches(store, hook, size, device),
        held_out(store, target or hook, size, device),
        [*cuts.values()],
        validation_batches(store, target, size, device) if target else None,
        progress,
    )
    if not found[0][-1].fvu < float("inf"):
        raise StudyError(
            f"{sae.name}: its FVU is no number: activations that are all alike, or an SAE that has "
            "diverged; choose another cell"
        )
    return [
        Curve(sae, by, _without_repeats(truncations) if asked == Asked() else truncations)
        for by, truncations in zip(cuts, found, strict=True)
    ]


def _without_repeats(truncations: Sequence[Truncation]) -> Sequence[Truncation]:
    """Up to the first that holds the whole code: all behind it are the same."""
    whole = int(truncations[-1].active.sum())
    last = next(i for i, one in enumerate(truncations) if int(one.active.sum()) == whole)
    return truncations[: last + 1]


def tokens_of(folder: Path, sae: TrainedSAE) -> int:
    """Validation activations at its hook."""
    store = LevelledStore(folder / "artifacts/extract")
    return store.activations(sae.where[0], "validation").rows


def k_of(sae: TrainedSAE, loaded: SAE) -> int | None:
    """Latents per token that its activation selects; None where a penalty decides."""
    return sae.settings.k if sae.settings.kind != "imported" else loaded.k


def _cut(by: By, sae: TrainedSAE, loaded: SAE, asked: Asked, store: LevelledStore) -> Cut:
    k = k_of(sae, loaded)
    most = loaded.d_sae if by == "prefix" or k is None else min(k, loaded.d_sae)
    given = asked.k if by == "k" else asked.prefix
    if given and given[-1] > most:
        what = "latents in all" if most == loaded.d_sae else "as its k"
        raise StudyError(f"--{by} {given[-1]}: {sae.name} has {most} {what}; ask for at most that")
    at = given or powers_of_two(most)
    if by == "prefix":
        return first_latents(at)
    calibrated = sae.settings.activation_row.threshold == "calibrated"
    if sae.settings.kind == "imported" or not calibrated:
        return strongest(at)
    return above_thresholds(at, [*_thresholds(sae, loaded, at, store)])


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4, … below `most`, and `most`."""
    return *(2**i for i in range(most.bit_length()) if 2**i < most), most


def _thresholds(
    sae: TrainedSAE, loaded: SAE, at: Sequence[int], store: LevelledStore
) -> Iterator[float]:
    """θ for each k' of `at`, from calibration tokens; the SAE's own for its own k."""
    hook = sae.where[0]
    rows = store.activations(hook, "calibration").rows
    for k in at:
        if k == sae.settings.k:
            assert loaded.weights.threshold is not None
            yield float(loaded.weights.threshold.clamp(min=0).max())
            continue
        with torch.no_grad():
            yield batchtopk_threshold(
                (
                    pre_activations(
                        loaded.weights, x_nd, apply_b_dec_to_input=loaded.apply_b_dec_to_input
                    )
                    for x_nd, _ in batches_of(store, hook, "calibration", CALIBRATION_BATCH, "cpu")
                ),
                k,
                rows,
            )


@dataclass(frozen=True)
class Peer:
    """A cell that was trained for one truncation alone, as the stage `evaluate` measured it."""

    name: str
    seeds: Mapping[str, Mapping[str, Any]]
    """metrics.json of each SAE that finished, by its place."""


def peers(
    study: Path, cells: Mapping[str, Cell], sae: TrainedSAE, by: By, at: int
) -> list[Peer | str]:
    """The other cells trained for the truncation `at`, or a note for one that is not evaluated.

    Cells without prefixes on the same hooks: with k = k' and as many latents; or as wide as the
    prefix is long, with the same target L0 and activation.
    """
    own, found = sae.settings, []
    for name, cell in cells.items():
        if name == sae.cell or cell.kind != "trained" or cell.prefixes != "none":
            continue
        fits = cell.k == at if by == "k" else (
            (cell.l0_target, cell.activation) == (own.l0_target, own.activation)
        )  # fmt: skip
        if not fits:
            continue
        peer = _peer(study, name, cell, sae, at if by == "prefix" else sae.record["d_sae"])
        if peer is not None:
            found.append(peer)
    return found


def _peer(study: Path, name: str, cell: Cell, sae: TrainedSAE, d_sae: int) -> Peer | str | None:
    """None for one of another place or width."""
    seeds = {}
    for place in cell.members():
        path = study / "artifacts/train" / name / place / "train.json"
        if not path.is_file():
            return f"{name}: not trained yet, left out"
        record = read_object(path)
        if TrainedSAE(name, place, cell, path.parent, record).where != sae.where:
            return None
        if record["d_sae"] != d_sae:
            return None
        folder = study / "artifacts/evaluate" / name / place
        if not (folder / "metrics.json").is_file():
            return f"{name}: not evaluated yet, left out; run `dvc repro`"
        check_if_sealed(folder, "metrics.json")
        measured = read_object(folder / "metrics.json")
        if measured["status"] == "ok":
            seeds[place] = measured
    return Peer(name, seeds) if seeds else f"{name}: failed, left out"
