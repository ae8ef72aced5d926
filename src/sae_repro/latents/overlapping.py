"""SAEs of a study whose latents are to be laid side by side: which latents fire on which tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.compare.collect import Result
from sae_repro.compare.widths.directions import Atoms, atoms_of
from sae_repro.contents import check_if_sealed
from sae_repro.errors import StudyError, shown
from sae_repro.evaluate.held_out import validation_batches
from sae_repro.files import read_object
from sae_repro.latents.of_cell import CellSAE
from sae_repro.latents.overlap import firing, tokens_each
from sae_repro.latents.truncated_cell import TrainedSAE, saes_named
from sae_repro.params import Cell, Study
from sae_repro.readers.joined import LevelledStore

LEAST = 10
"""Held-out tokens on which a latent must fire, to have a parent by overlap."""


@dataclass(frozen=True)
class Member:
    """One SAE: its latents that fire on held-out tokens, and on which of these."""

    of: CellSAE
    seed: int
    atoms: Atoms
    fires_nk: csr_array
    """int32 [N, len(atoms)]."""

    @property
    def name(self) -> str:
        """`cell`, or `cell/seed-<n>`."""
        return self.of.name

    @property
    def d_sae(self) -> int:
        """K."""
        return self.of.sae.d_sae

    @property
    def l0(self) -> float:
        """Active latents per token."""
        return float(self.fires_nk.nnz / self.fires_nk.shape[0])

    @property
    def often(self) -> npt.NDArray[np.bool_]:
        """Of each latent, whether it fires on `LEAST` tokens."""
        enough: npt.NDArray[np.bool_] = tokens_each(self.fires_nk) >= LEAST
        return enough


@dataclass(frozen=True)
class Level:
    """The SAEs of one width, that finished: those of a cell's seeds, or one."""

    name: str
    members: tuple[Member, ...]

    @property
    def d_sae(self) -> int:
        """K."""
        return self.members[0].d_sae

    @property
    def by_seed(self) -> Mapping[int, Member]:
        """Its SAEs by their seeds."""
        return {member.seed: member for member in self.members}


def named(
    folder: Path, cells: Mapping[str, Cell], names: Sequence[str]
) -> tuple[list[list[TrainedSAE]], list[str]]:
    """(the finished SAEs of each of `names`, by rising width; notes on failed seeds).

    StudyError for fewer than two, for baselines, for cells that are not trained or evaluated, of
    different hooks, or by falling width.
    """
    if len(names) < 2:
        raise StudyError("name two cells at least, by rising width: NARROW WIDE")
    found, notes = [], []
    for name in names:
        saes, note = saes_named(folder, cells, name)
        notes += [note] if note else []
        for sae in saes:
            _refuse(folder, sae)
        found.append(saes)
    for narrow, wide in pairwise(found):
        a, b = narrow[0], wide[0]
        if a.where != b.where:
            here, there = (" → ".join(h for h in sae.where if h) for sae in (a, b))
            raise StudyError(
                f"{a.name} is of {here}, {b.name} of {there}: latents of different activations "
                "fire for different reasons; choose cells of one hook"
            )
        if a.record["d_sae"] > b.record["d_sae"]:
            raise StudyError(
                f"{b.name} has {b.record['d_sae']:,} latents, {a.name} before it "
                f"{a.record['d_sae']:,}; name cells by rising width"
            )
    return found, notes


def _refuse(folder: Path, sae: TrainedSAE) -> None:
    """StudyError for what has no learnt latents, or was not measured."""
    if sae.settings.baseline is not None:
        raise StudyError(
            f"{sae.name}: a baseline ({sae.settings.baseline}) has no latents that training "
            "found; choose cells that are trained"
        )
    evaluated = _evaluated(folder, sae)
    if not (evaluated / "metrics.json").is_file():
        raise StudyError(f"{sae.name}: not evaluated yet ({evaluated}); run `dvc repro` first")
    check_if_sealed(evaluated)
    status = read_object(evaluated / "metrics.json")["status"]
    if status != "ok":
        raise StudyError(f"{sae.name}: its evaluation ended as {shown(status)}; choose another")


def _evaluated(folder: Path, sae: TrainedSAE) -> Path:
    return folder / "artifacts/evaluate" / sae.cell / sae.place


def levels(
    study: Study,
    folder: Path,
    found: Sequence[Sequence[TrainedSAE]],
    progress: Callable[[int], object] = lambda tokens: None,
) -> list[Level]:
    """All SAEs in `found`, with what fires on held-out tokens, each encoded once.

    StudyError for one that does not fit the activations, or no latent of which fires on them.
    """
    store = LevelledStore(folder / "artifacts/extract")
    hook = found[0][0].where[0]
    flat = [sae for saes in found for sae in saes]
    loaded = [sae.read_for(store) for sae in flat]
    atoms = [atoms_of(_result(folder, sae)) for sae in flat]
    for sae, own in zip(flat, atoms, strict=True):
        if not len(own):
            raise StudyError(f"{sae.name}: no latent fires on held-out tokens; choose another")
    batches = validation_batches(store, hook, study.evaluate.batch_size, "cpu")
    fires = firing(loaded, batches, progress)
    members = iter(
        Member(
            CellSAE(sae.name, one, hook, folder / "artifacts"),
            sae.seed,
            own,
            csr_array(fires_nk[:, own.latent]),
        )
        for sae, one, own, fires_nk in zip(flat, loaded, atoms, fires, strict=True)
    )
    return [
        Level(saes[0].cell if len(saes) > 1 else saes[0].name, tuple(next(members) for _ in saes))
        for saes in found
    ]


def _result(folder: Path, sae: TrainedSAE) -> Result:
    evaluated = _evaluated(folder, sae)
    measured = read_object(evaluated / "metrics.json")
    return Result(sae.name, sae.settings, measured, sae.folder, evaluated)
