"""Memory and traffic of a cell that several processes train together, computed from its shapes.

Bytes per process, exact for what is counted: weights with Adam's moments, gradients,
pre-activations, and what is handed to the transport. The rest (libraries, batches, buffers) is
left out.
"""

from dataclasses import dataclass

from sae_repro.parallel.ranks import BUCKET
from sae_repro.params import Cell

FLOAT, DOUBLE = 4, 8


@dataclass(frozen=True)
class Footprint:
    """Bytes per process."""

    ranks: int
    state: int
    """Weights and Adam's two moments."""
    gradients: int
    """Of the whole batch, with those of the micro-batches that wait for their sum."""
    pre_activations: int
    """u of all that a process holds at once."""
    sent: int
    """Per step."""


def footprint(cell: Cell, d_in: int, batch_size: int, ranks: int) -> Footprint:
    """Of one of `ranks` processes that train `cell` on inputs [batch_size, d_in]."""
    k, n = cell.width(d_in), batch_size
    if cell.latent_shards == 1:
        own = cell.micro_batches // ranks
        parameters = 2 * k * d_in + k + d_in
        waiting = own.bit_length()  # a tree over 1, 2, 4, … holds 1, 2, 3, …
        return Footprint(
            ranks,
            state=3 * FLOAT * parameters,
            gradients=waiting * FLOAT * parameters,
            pre_activations=FLOAT * n // cell.micro_batches * k,
            sent=_sent_of_batches(cell, d_in, k, own, ranks),
        )
    own, each = cell.latent_shards // ranks, k // cell.latent_shards
    return Footprint(
        ranks,
        state=3 * FLOAT * own * (2 * each * d_in + each + d_in),
        gradients=FLOAT * own * (2 * each * d_in + each + d_in),
        pre_activations=FLOAT * own * n * each,
        sent=_sent_of_shards(cell, d_in, each, n, own, ranks),
    )


def summed(numbers: int, size: int, ranks: int) -> int:
    """Bytes that a process sends for the sum of as many numbers of `size` bytes: 2 (R − 1) / R of
    them, each bucket filled up to a multiple of R."""
    whole, rest = divmod(numbers, BUCKET)
    slices = whole * -(-BUCKET // ranks) + -(-rest // ranks)
    return 2 * (ranks - 1) * slices * size


def _sent_of_batches(cell: Cell, d_in: int, k: int, own: int, ranks: int) -> int:
    terms = 1 + (cell.penalty != "none")
    weights = (k * d_in, k, k * d_in, d_in)
    gradients = sum(summed(numbers, FLOAT, ranks) for numbers in weights)
    return gradients + (ranks - 1) * (own * (terms + 2) * DOUBLE + k)


def _sent_of_shards(cell: Cell, d_in: int, each: int, n: int, own: int, ranks: int) -> int:
    offered = 0
    if cell.k is not None:
        offered = n * min(cell.k, each) if cell.activation == "topk" else min(cell.k * n, n * each)
    gathered = own * (offered * FLOAT + 3 * DOUBLE + each)
    return (
        (ranks - 1) * gathered
        + summed(n * d_in, FLOAT, ranks)  # x̂
        + summed(d_in, FLOAT, ranks)  # b_dec's gradient
        + summed(1, DOUBLE, ranks)  # the gradient's norm
    )


def finished_bytes(cell: Cell, d_in: int, ranks: int) -> int:
    """What each process but the first sends once, at the end, for the SAE to be put together."""
    if cell.latent_shards == 1:
        return 0
    own, each = cell.latent_shards // ranks, cell.width(d_in) // cell.latent_shards
    return FLOAT * own * (2 * each * d_in + each + d_in)


def table(cell: Cell, d_in: int, batch_size: int) -> str:
    """A row for each number of processes that can share the cell."""
    from tabulate import tabulate

    numbers = [2**i for i in range(cell.parts.bit_length())]
    rows = [footprint(cell, d_in, batch_size, ranks) for ranks in numbers]
    text: str = tabulate(
        [
            [row.ranks, *map(_size, (row.state, row.gradients, row.pre_activations, row.sent))]
            for row in rows
        ],
        headers=["processes", "weights and Adam", "gradients", "u", "sent per step"],
        colalign=["right"] * 5,
        disable_numparse=True,
    )
    return text


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
