"""Rows as tokens have them, or one per document."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.extract.passes import Batch

Rows = dict[str, npt.NDArray[Any]]


class Tokens:
    """Rows as they are."""

    def add(
        self, rows: dict[str, npt.NDArray[Any]], index: npt.NDArray[np.int32]
    ) -> Iterator[Batch]:
        """The batch itself, unless it is empty."""
        if len(index):
            yield rows, index

    def finish(self) -> Iterator[Batch]:
        """Nothing waits."""
        return iter(())


class DocumentMeans:
    """One row per document: its mean, index (document, -1, -1).

    A document's tokens come one after another, so that only the last one can be unfinished.
    """

    def __init__(self) -> None:
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._tokens, self._current = 0, -1

    def add(
        self, rows: dict[str, npt.NDArray[Any]], index: npt.NDArray[np.int32]
    ) -> Iterator[Batch]:
        """Take a batch of tokens; the documents that it shows to be finished."""
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
            yield rows, np.array([[self._current, -1, -1]], dtype=np.int32)
        self._sums, self._tokens = {}, 0
