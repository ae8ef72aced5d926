"""Rows as tokens have them, or one per document."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sae_repro.extract.passes import Batch
from sae_repro.extract.state import State


class Tokens:
    """Rows as they are."""

    def add(self, batch: Batch) -> Iterator[Batch]:
        """The batch itself, unless it is empty."""
        if len(batch.index):
            yield batch

    def finish(self) -> Iterator[Batch]:
        """Nothing waits."""
        return iter(())

    def state(self) -> State:
        """Nothing."""
        return {}


class DocumentMeans:
    """One row per document: its mean, index (document, -1, -1).

    A document's tokens come one after another, so that only the last one can be unfinished: `state`
    holds it.
    """

    def __init__(self, state: State | None = None) -> None:
        of: State = state or {"sums": {}, "tokens": 0, "current": -1}
        self._sums: dict[str, npt.NDArray[np.float64]] = of["sums"]
        self._tokens, self._current = of["tokens"], of["current"]

    def add(self, batch: Batch) -> Iterator[Batch]:
        """Take a batch of tokens; the documents that it shows to be finished."""
        rows, index = batch.rows, batch.index
        for document in np.unique(index[:, 0]):
            if document != self._current:
                yield from self.finish()
                self._current = int(document)
            chosen = index[:, 0] == document
            self._tokens += int(chosen.sum())
            for hook, values in rows.items():
                part = values[chosen].sum(axis=0, dtype=np.float64)
                self._sums[hook] = self._sums[hook] + part if hook in self._sums else part

    def finish(self) -> Iterator[Batch]:
        """The last document, if any."""
        if self._tokens:
            rows = {
                hook: (total / self._tokens)[None].astype(np.float32)
                for hook, total in self._sums.items()
            }
            yield Batch(rows, np.array([[self._current, -1, -1]], dtype=np.int32), {})
        self._sums, self._tokens = {}, 0

    def state(self) -> State:
        """The sums of the unfinished document."""
        return {"sums": self._sums, "tokens": self._tokens, "current": self._current}
