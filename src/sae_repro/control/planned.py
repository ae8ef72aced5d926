"""A trial: one recipe on one world, for one seed."""

from dataclasses import dataclass

from sae_repro.params import Cell
from sae_repro.params.worlds import World

NUMBERS = 1 << 16
"""Of the code of a batch, for which arithmetic takes as long as the calls that all steps need."""


@dataclass(frozen=True)
class Trial:
    """One recipe on one world, for one seed."""

    world: str
    """tree, two_atoms, oracle, sparse or, of a spec file, spec."""
    name: str
    """The world as tables call it: `tree d=20`, `oracle K=128`, or the spec file's name."""
    recipe: str
    seed: int
    d_in: int
    batch_size: int
    steps: int
    rows: int
    """Training rows, of which `steps` batches are whole passes."""
    cell: Cell
    half_dead: bool = False
    spec: World | None = None
    method: str | None = None
    """Of a spec file: the recipe without width and L0."""
    l0_multiple: float | None = None
    """Of a spec file: the L0 that is asked for, in units of the world's own."""

    @property
    def epochs(self) -> int:
        """Passes over the rows."""
        return self.steps * self.batch_size // self.rows

    @property
    def cost(self) -> float:
        """Of its training, in units of a step on which arithmetic costs nothing; to sort by.

        From the times of the four worlds' trials, each within a factor of 2.
        """
        nested = 1.0 if self.cell.prefixes == "none" else 1.6
        return self.steps * nested * (1 + self.batch_size * self.cell.width(self.d_in) / NUMBERS)
