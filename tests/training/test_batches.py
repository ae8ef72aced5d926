"""The batches of training: rows by step, epoch and seed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_repro.files import sha256_file
from sae_repro.readers.shards import ActivationStore, Shards
from sae_repro.training.batches import Batches

HOOK = "blocks.0.hook_resid_post"


def numbered(make_store: Callable[..., Path], n: int, shards: int) -> Shards:
    """Training rows whose first entry is their number."""
    rows = np.zeros((n, 2), dtype=np.float32)
    rows[:, 0] = np.arange(n)
    folder = make_store(train=rows, d_in=2, shards=shards, name=f"e{n}-{shards}")
    return ActivationStore(folder).activations(HOOK, "train")


@given(st.integers(1, 120), st.integers(1, 5), st.integers(1, 40), st.integers(1, 12))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_epoch_sees_every_row_once_its_ragged_end_apart(
    make_store: Callable[..., Path], n: int, shards: int, size: int, steps: int
) -> None:
    """The last epoch stops anywhere; what a longer training sees first is the same."""
    store = numbered(make_store, n, shards)
    batches = Batches(store, size, steps, seed=0, cell_id="a")
    seen = [batch[:, 0] for batch in batches.starting_at(0)]
    per_epoch = n // size
    assert len(seen) == batches.steps == (steps if per_epoch else 0)
    assert all(len(batch) == size for batch in seen)
    for first in range(0, len(seen), max(1, per_epoch)):
        rows = torch.cat(seen[first : first + per_epoch]).tolist()
        assert len(set(rows)) == len(rows)
    longer = Batches(store, size, steps + 2, seed=0, cell_id="a").starting_at(0)
    assert all(torch.equal(a, b[:, 0]) for a, b in zip(seen, longer, strict=False))


def test_a_step_sees_the_same_rows_wherever_one_starts(make_store: Callable[..., Path]) -> None:
    batches = Batches(numbered(make_store, 101, 4), 10, 27, seed=0, cell_id="a")
    whole = list(batches.starting_at(0))
    for start in range(batches.steps):
        rest = list(batches.starting_at(start))
        assert len(rest) == batches.steps - start
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_epochs_and_cells_differ_in_their_order(make_store: Callable[..., Path]) -> None:
    shards = numbered(make_store, 100, 3)
    first = torch.cat(list(Batches(shards, 10, 20, seed=0, cell_id="a").starting_at(0)))
    other = torch.cat(list(Batches(shards, 10, 20, seed=0, cell_id="b").starting_at(0)))
    assert not torch.equal(first[:100], first[100:])
    assert not torch.equal(first, other)
    # and of one shard alone
    alone = torch.cat(list(Batches(numbered(make_store, 100, 1), 10, 20, seed=0, cell_id="a")
                           .starting_at(0)))  # fmt: skip
    assert not torch.equal(alone[:100], alone[100:])


def test_a_sample_has_its_size_and_depends_on_its_name(make_store: Callable[..., Path]) -> None:
    batches = Batches(numbered(make_store, 100, 3), 10, 1, seed=0, cell_id="a")
    assert len(batches.sample(50, "x")) == 50
    assert len(batches.sample(500, "x")) == 100
    assert torch.equal(batches.sample(50, "x", 1), batches.sample(50, "x", 1))


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(0, 30))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rounds_come_in_order_each_a_whole_number_of_batches(
    make_store: Callable[..., Path], rounds: int, shards: int, batches: int, more: int
) -> None:
    """An epoch of the rounds 0, 1, …, the last one shorter or longer; samples are of one round."""
    size = 7
    store = numbered(make_store, rounds * batches * size + more, 1)
    whole = store.whole()
    entries, begin = [], 0
    for number in range(rounds):
        rows = batches * size + (more if number == rounds - 1 else 0)
        for part in np.array_split(np.arange(begin, begin + rows), shards):
            name = f"part-{number}-{part[0] if len(part) else 'none'}-{len(entries)}.npy"
            np.save(store.folder / name, whole[part])
            entries.append({"file": name, "rows": len(part), "round": number,
                            "sha256": sha256_file(store.folder / name)})  # fmt: skip
        begin += rows
    of_rounds = Shards(store.folder, tuple(entries))
    per_epoch = of_rounds.rows // size
    read = Batches(of_rounds, size, per_epoch + 1, seed=0, cell_id="a")
    seen = torch.cat(list(read.starting_at(0)))[: per_epoch * size, 0]
    assert len(set(seen.tolist())) == len(seen)
    ends = read.round_ends
    assert ends[:rounds] == [*range(batches, batches * rounds, batches), per_epoch]
    assert ends[rounds:] == [per_epoch + 1]
    assert read.pauses == (frozenset(ends) if rounds > 1 else frozenset())
    first = 0
    for number, end in enumerate(ends[:rounds]):
        within = {float(x) for x in whole[first * size : (first + batches) * size + more, 0]}
        assert set(seen[first * size : end * size].tolist()) <= within, number
        for step in {first, end - 1}:
            for at in (step, step + 2 * per_epoch):
                assert set(read.sample(5, "rows", step, at=at)[:, 0].tolist()) <= within
        first = end
