"""Rounds of training rows (`extract.buffer`): each shuffled by itself, in the order of arrival."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.extract.sinks import Entries, Rows, ShuffledSink, Widths
from sae_repro.extract.state import State
from sae_repro.numerics.random import generator
from sae_repro.params import Extract

NewRound = Callable[[int, State | None], ShuffledSink]
"""The sink of a round by its number, from a state on if there is one."""


def new_rounds(folder: Path, settings: Extract, d_in: Widths, seed: int) -> NewRound:
    """What makes the sinks of the rounds of `settings.buffer` tokens in `folder`."""
    assert settings.buffer is not None
    shards = -(-settings.buffer // settings.shard_rows)

    def new_round(number: int, state: State | None = None) -> ShuffledSink:
        return ShuffledSink(
            folder,
            settings.all_hooks,
            d_in,
            settings.dtype,
            shards=shards,
            rng=generator(seed, "extract", "shuffle", number),
            first=number * shards,
            state=state,
        )

    return new_round


class RoundsSink:
    """Rounds of exactly `rows` rows, the last one shorter; the shards of each say its number.

    A round that is `full` has to be ended by `turn` before more rows are appended: putting its rows
    in order changes files, so that the extraction's state is saved before and after it.
    """

    def __init__(self, new: NewRound, rows: int, state: State | None = None) -> None:
        of: State = state or {"number": 0, "round": None, "taken": 0, "last": 0,
                              "entries": {}, "rest": None}  # fmt: skip
        self._new, self._rows = new, rows
        self._number, self._taken = of["number"], of["taken"]
        self._round = new(self._number, of["round"])
        self._entries: Entries = of["entries"]
        self._rest: dict[str, npt.NDArray[Any]] | None = of["rest"]
        """Rows of the last batch, and of its index, that are of the next round."""
        self._last = of["last"]
        """Rows of the last batch."""

    @property
    def full(self) -> bool:
        """Whether the round has all its rows, and there are rows of the next one."""
        return self._rest is not None

    @property
    def skipped(self) -> int:
        """Rows of the last batch that belong to rounds up to this one."""
        waiting = 0 if self._rest is None else len(self._rest["index"])
        last: int = self._last
        return last - waiting

    def append(self, rows: Rows, index: npt.NDArray[np.int32]) -> None:
        """Take a batch; what does not fit into the round waits for the next."""
        self._last = len(index)
        self._fill({**rows, "index": index})

    def _fill(self, batch: Mapping[str, npt.NDArray[Any]]) -> None:
        room = self._rows - self._taken
        fit = {name: values[:room] for name, values in batch.items()}
        self._taken += len(fit["index"])
        index = fit.pop("index")
        self._round.append(fit, index)
        left = {name: values[room:] for name, values in batch.items()}
        self._rest = left if len(left["index"]) else None

    @property
    def ended(self) -> list[dict[str, Any]]:
        """The shards of the rounds that are ended, of all hooks and of the index."""
        return [entry for entries in self._entries.values() for entry in entries]

    def turn(self) -> None:
        """End a full round, and begin the next with what waits."""
        assert self._rest is not None
        self._end()
        self._number, self._taken = self._number + 1, 0
        self._round = self._new(self._number, None)
        self._fill(self._rest)

    def _end(self) -> None:
        for name, entries in numbered(self._round.close(), self._number).items():
            self._entries.setdefault(name, []).extend(entries)

    def close(self) -> Entries:
        """Finish; per hook, and for "index", the shards of all rounds."""
        self._end()
        return self._entries

    def state(self) -> State:
        """What it needs to go on from here."""
        return {
            "number": self._number,
            "round": self._round.state(),
            "taken": self._taken,
            "last": self._last,
            "entries": self._entries,
            "rest": self._rest,
        }


def numbered(listing: Entries, number: int) -> Entries:
    """The same shards, each with its round."""
    return {
        name: [{**entry, "round": number} for entry in entries] for name, entries in listing.items()
    }
