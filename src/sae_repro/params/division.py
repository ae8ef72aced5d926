"""Division of one cell's step into parts that several processes can share.

The parts, and not the processes, decide the bits: a cell of four parts is the same on one process,
on two and on four. `sae_repro.parallel` computes them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sae_repro.params.base import Section

if TYPE_CHECKING:
    from sae_repro.params.cell import Cell

Parts = Literal[1, 2, 4, 8, 16, 32, 64]
"""Powers of two: a tree over them has the same subtrees on every number of ranks that divides
them."""

SHARDED_ACTIVATIONS = ("topk", "batchtopk", "relu")
SHARDED_PENALTIES = ("none", "l1")


class Divided(Section):
    """Parts of a cell's training step."""

    micro_batches: Parts = Field(
        1,
        description="equal parts of a batch, whose gradients are computed one by one and summed in "
        "a fixed tree, so that `sae-repro parallel` trains the cell on as many processes with the "
        "same bits; another number gives other bits",
    )
    latent_shards: Parts = Field(
        1,
        description="equal parts of the latents, whose shares of x̂ are summed in a fixed tree, so "
        "that `sae-repro parallel` can spread a dictionary over as many processes with the same "
        "bits; another number gives other bits; topk, batchtopk, relu with l1",
    )

    @property
    def parts(self) -> int:
        """Parts of a step: as many processes can share it."""
        return self.micro_batches * self.latent_shards


def division_faults(cell: "Cell") -> Iterator[str]:
    """What can't be trained in parts, one line each."""
    if cell.micro_batches > 1 and cell.latent_shards > 1:
        yield "micro_batches and latent_shards divide the same step: set one of them"
    elif cell.micro_batches > 1:
        yield from _batch_faults(cell)
    elif cell.latent_shards > 1:
        yield from _shard_faults(cell)


def _batch_faults(cell: "Cell") -> Iterator[str]:
    key = f"micro_batches = {cell.micro_batches}"
    if cell.hooks is not None:
        yield f"{key}: crosscoders are trained whole: hooks must be unset"
    if cell.activation_row.threshold == "calibrated":
        yield (
            f"{key}: {cell.activation} selects over the whole batch, and of a part it would select "
            "others: use latent_shards, or activation: topk"
        )
    if cell.penalty_row.needs_target_l0:
        yield f"{key}: penalty {cell.penalty} is of the whole batch's L0: use penalty: l0"
    if cell.revival_row.auxiliary:
        yield (
            f"{key}: revival {cell.revival} is divided by the whole batch's residual variance: use "
            "revival: resample or none"
        )


def _shard_faults(cell: "Cell") -> Iterator[str]:
    key = f"latent_shards = {cell.latent_shards}"
    if cell.activation not in SHARDED_ACTIVATIONS:
        yield f"{key}: written for activation {' | '.join(SHARDED_ACTIVATIONS)} only"
    if cell.penalty not in SHARDED_PENALTIES:
        yield f"{key}: written for penalty {' | '.join(SHARDED_PENALTIES)} only"
    for field, value, why in (
        ("prefixes", "none", "a prefix lies in the first shards alone"),
        ("order", "none", "sorting would move latents from one process to another"),
        ("revival", "none", "the dead latents of all processes would have to meet"),
        ("decoder", "unit_norm", "norms of rows are not exchanged"),
        ("frozen", None, "controls are small"),
        ("target_hook", None, "only autoencoders are sharded"),
        ("hooks", None, "only autoencoders of one hook are sharded"),
    ):
        if getattr(cell, field) != value:
            yield f"{key}: {why}: {field} must be {'unset' if value is None else value}"
