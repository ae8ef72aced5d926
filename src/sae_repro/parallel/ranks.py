"""Exchange between the processes (ranks) that train one cell together, in a fixed order.

A step has parts: micro-batches of its batch, or shards of its latents. Each rank holds as many
neighbouring parts as every other. What the parts contribute is gathered in their order, or summed
by a tree over them: with parts and ranks in powers of two, a rank's own sum is a subtree, so that
the bits of a sum are the same on every number of ranks.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import torch
from torch import Tensor

from sae_repro.errors import StudyError

BUCKET = 1 << 22
"""Numbers that are exchanged at once: what a sum holds in memory beside its operands."""
TIMEOUT = timedelta(minutes=30)
"""For which a rank waits for another that is silent; one that ended is noticed at once."""


class Ranks(Protocol):
    """What a rank knows of the others."""

    rank: int
    number: int
    sent: int
    """Bytes that this rank has handed over for the others, without the transport's headers."""

    def gather(self, own: Sequence[Tensor]) -> list[Tensor]:
        """The tensors of all parts, in their order, from those of this rank's; all of one shape."""

    def sum(self, own: Sequence[Tensor]) -> Tensor:
        """Their sum over all parts, by the tree; may overwrite `own`."""

    def send(self, tensor: Tensor, rank: int) -> None:
        """Hand a tensor to another rank, which has to `receive` it."""

    def receive(self, like: Tensor, rank: int) -> Tensor:
        """The tensor, of this shape and dtype, that another rank sends."""


def own_parts(parts: int, ranks: Ranks) -> range:
    """The parts of a step that this rank holds; StudyError where ranks can't share them evenly."""
    if parts % ranks.number:
        raise StudyError(
            f"{ranks.number} ranks: the cell has {parts} parts (micro_batches or latent_shards), "
            f"of which each rank takes as many: use 1, 2, 4, … up to {parts}"
        )
    each = parts // ranks.number
    return range(ranks.rank * each, (ranks.rank + 1) * each)


class TreeSum:
    """A sum over a power of two of tensors by a binary tree, holding one per level of it.

    Tensors are overwritten. ((t0 + t1) + (t2 + t3)) + …
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Tensor]] = []

    def add(self, tensor: Tensor) -> None:
        """Take in the next tensor."""
        level = 0
        while self._waiting and self._waiting[-1][0] == level:
            tensor = self._waiting.pop()[1].add_(tensor)
            level += 1
        self._waiting.append((level, tensor))

    def total(self) -> Tensor:
        """The sum; AssertionError where the tensors were no power of two."""
        ((_, total),) = self._waiting
        return total


def tree_sum(tensors: Sequence[Tensor]) -> Tensor:
    """Their sum by the tree; may overwrite them."""
    tree = TreeSum()
    for tensor in tensors:
        tree.add(tensor)
    return tree.total()


class Alone:
    """One process that holds all parts."""

    rank, number, sent = 0, 1, 0

    def gather(self, own: Sequence[Tensor]) -> list[Tensor]:
        """`own`."""
        return list(own)

    def sum(self, own: Sequence[Tensor]) -> Tensor:
        """Their sum by the tree."""
        return tree_sum(own)

    def send(self, tensor: Tensor, rank: int) -> None:
        """There is no other rank."""
        raise AssertionError

    def receive(self, like: Tensor, rank: int) -> Tensor:
        """There is no other rank."""
        raise AssertionError


class Distributed:
    """A rank of torch.distributed's default group; a lost rank is a StudyError on the others."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.rank, self.number, self.sent = dist.get_rank(), dist.get_world_size(), 0

    def gather(self, own: Sequence[Tensor]) -> list[Tensor]:
        """As of `Ranks`: each rank sends what it has to every other."""
        stacked = torch.stack(list(own))
        into = stacked.new_empty(self.number * len(own), *own[0].shape)
        self._all_gather(into, stacked)
        return list(into.unbind())

    def sum(self, own: Sequence[Tensor]) -> Tensor:
        """As of `Ranks`: each rank sums a slice over all ranks, and sends the sum to the others.

        A rank sends 2 (R − 1) / R times the size of the sum, as in an all-reduce by a ring, whose
        order of adding is the library's.
        """
        total = tree_sum(own)
        flat = total.reshape(-1)
        for first in range(0, flat.numel(), BUCKET):
            self._sum_bucket(flat[first : first + BUCKET])
        return flat.view(total.shape)

    def send(self, tensor: Tensor, rank: int) -> None:
        """As of `Ranks`."""
        import torch.distributed as dist

        with _noticing(self.rank):
            dist.send(tensor, rank)
        self.sent += tensor.nbytes

    def receive(self, like: Tensor, rank: int) -> Tensor:
        """As of `Ranks`."""
        import torch.distributed as dist

        into = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        with _noticing(self.rank):
            dist.recv(into, rank)
        return into

    def _sum_bucket(self, bucket: Tensor) -> None:
        each = -(-len(bucket) // self.number)
        padded = bucket.new_zeros(self.number * each)
        padded[: len(bucket)] = bucket
        slices = torch.empty_like(padded)
        self._all_to_all(slices, padded)
        self._all_gather(padded, tree_sum(slices.view(self.number, each).unbind()))
        bucket.copy_(padded[: len(bucket)])

    def _all_gather(self, into: Tensor, own: Tensor) -> None:
        import torch.distributed as dist

        own = own.contiguous()
        with _noticing(self.rank):
            dist.all_gather_single(into, own)
        self.sent += (self.number - 1) * own.nbytes

    def _all_to_all(self, into: Tensor, slices: Tensor) -> None:
        import torch.distributed as dist

        with _noticing(self.rank):
            dist.all_to_all_single(into, slices)
        self.sent += (self.number - 1) * slices.nbytes // self.number


@contextmanager
def _noticing(rank: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo and of NCCL; they have no class of their own
        reason = str(error).splitlines()[0]
        raise StudyError(
            f"rank {rank}: another rank is gone, or silent for {TIMEOUT}: training ends here; see "
            f"what that rank printed, then run the same command again ({reason})"
        ) from None


def started_by_torchrun() -> bool:
    """Whether this process is a rank that torchrun started."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ)


@contextmanager
def joined(device: str) -> Iterator[Distributed]:
    """The ranks that torchrun started: gloo between CPUs, NCCL between GPUs."""
    import torch.distributed as dist

    if device == "cpu":
        dist.init_process_group("gloo", timeout=TIMEOUT)
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl", timeout=TIMEOUT)
    try:
        yield Distributed()
    finally:
        dist.destroy_process_group()


ALONE = Alone()
