"""A trial: one recipe on one world, for one seed."""

from dataclasses import dataclass

from sae_repro.params import Cell
from sae_repro.params.worlds import World


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
