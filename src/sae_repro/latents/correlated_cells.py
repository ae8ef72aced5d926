"""Mean max correlations of a study's cells with reference cells, over the seeds of both.

Each SAE is encoded once, on the sample of validation tokens that the stage `evaluate` takes for its
small references; what is correlated is all there is in memory after that.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from sae_repro.errors import StudyError
from sae_repro.evaluate.held_out import Batch, validation_batches
from sae_repro.evaluate.metrics.references.correlation import Rows, sampled_rows
from sae_repro.latents.correlation import Encoded, OverSeeds, over_seeds
from sae_repro.latents.truncated_cell import TrainedSAE, saes_named
from sae_repro.numerics.pairs import seed_pairs
from sae_repro.params import Cell, Study
from sae_repro.params.architecture import architecture_of
from sae_repro.readers.joined import LevelledStore


@dataclass(frozen=True)
class Named:
    """A cell, or one SAE of it, whose SAEs finished."""

    name: str
    architecture: str
    saes: tuple[TrainedSAE, ...]

    @property
    def width(self) -> int:
        """K."""
        return int(self.saes[0].record["d_sae"])

    @property
    def by_seed(self) -> Mapping[int, TrainedSAE]:
        """Its SAEs by their seeds."""
        return {sae.seed: sae for sae in self.saes}


@dataclass(frozen=True)
class Correlation:
    """How well a cell's SAEs hold the latents of a reference's."""

    reference: Named
    reference_l0: float
    """Active latents per sampled token, mean over its SAEs."""
    cell: Named
    cell_l0: float
    found: OverSeeds


def cells_named(
    study: Path, cells: Mapping[str, Cell], names: Sequence[str]
) -> tuple[list[Named], list[str]]:
    """(the cells that `names` mean, by rising K; notes on failed seeds).

    A name is that of a cell, of cell/seed-<n>, or has * in it and means every cell that it fits.
    StudyError as of `saes_named`, and for a pattern that fits none.
    """
    found: dict[str, Named] = {}
    notes: list[str] = []
    for asked in names:
        fitting = [asked]
        if "*" in asked and asked not in cells:
            fitting = [name for name in cells if fnmatchcase(name, asked)]
            if not fitting:
                raise StudyError(f"{asked}: fits no cell; `sae-repro cells` lists them")
        for name in fitting:
            saes, note = saes_named(study, cells, name)
            found[name] = Named(name, architecture_of(saes[0].settings), tuple(saes))
            notes += note.splitlines()
    return sorted(found.values(), key=lambda one: one.width), notes


def one_hook(named: Sequence[Named]) -> str:
    """The hook that all of them read; StudyError where two read different ones."""
    first = named[0].saes[0]
    for one in named:
        hook = one.saes[0].where[0]
        if hook != first.where[0]:
            raise StudyError(
                f"{one.name} reads {hook}, {named[0].name} {first.where[0]}: latents are "
                "correlated on the activations of one hook; name cells of one"
            )
    return str(first.where[0])


def sample(study: Study, folder: Path, hook: str) -> Rows:
    """The validation activations of the documents that `evaluate` samples for references."""
    store = LevelledStore(folder / "artifacts/extract")

    def batches() -> Iterator[Batch]:
        return validation_batches(store, hook, study.evaluate.batch_size, "cpu")

    return sampled_rows(batches, store.index("validation").rows, study.seed)


def encode(
    study: Study,
    folder: Path,
    named: Sequence[Named],
    rows: Rows,
    done: Callable[[], object] = lambda: None,
) -> dict[str, Encoded]:
    """The code of each SAE by its name, each once; `done` is called after each.

    StudyError for an SAE that does not fit the activations, before anything is correlated.
    """
    store = LevelledStore(folder / "artifacts/extract")
    codes: dict[str, Encoded] = {}
    for sae in (sae for one in named for sae in one.saes):
        if sae.name in codes:
            continue
        codes[sae.name] = Encoded.of(sae.read_for(store), rows, study.seed)
        done()
    return codes


def pairs_of(
    references: Sequence[Named], cells: Sequence[Named]
) -> list[tuple[Named, Named, list[tuple[int, int]]]]:
    """(reference, cell, their pairs of seeds) of all that can be compared.

    A cell with one SAE is not compared with itself.
    """
    wanted = []
    for cell in cells:
        for reference in references:
            pairs = seed_pairs(*(
                {seed: sae.name for seed, sae in one.by_seed.items()} for one in (reference, cell)
            ))  # fmt: skip
            if pairs:
                wanted.append((reference, cell, pairs))
    return wanted


def correlations(
    wanted: Sequence[tuple[Named, Named, list[tuple[int, int]]]],
    codes: Mapping[str, Encoded],
    done: Callable[[], object] = lambda: None,
) -> Iterator[Correlation]:
    """Of each of `wanted`, in its order; `done` is called after each pair of SAEs."""
    for reference, cell, pairs in wanted:
        sides = [
            {seed: codes[sae.name] for seed, sae in one.by_seed.items()}
            for one in (reference, cell)
        ]
        l0 = [float(np.mean([code.l0 for code in side.values()])) for side in sides]
        found = over_seeds(sides[0], sides[1], pairs, done)
        yield Correlation(reference, l0[0], cell, l0[1], found)
