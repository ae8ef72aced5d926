"""Ground-truth concepts of the held-out tokens: the concept bank behind M, looked up by row."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.concepts.bank import load_bank
from sae_repro.pins import PinnedFile


class TokenConcepts:
    """The concepts of each row of `index` [N, 3], by document, then by position in it.

    `spans` is the file of the study's own labels (`evaluate.concepts`), if it has any.
    """

    def __init__(
        self, corpus: Path, index: npt.NDArray[Any], seed: int, spans: PinnedFile | None = None
    ) -> None:
        bank = load_bank(corpus, index, seed, spans)
        self._names = np.array(bank.names, dtype=object)
        self._labels = csr_array(bank.labels)

    @cached_property
    def base_rates(self) -> Mapping[str, float]:
        """The fraction of the rows that carries each concept."""
        counts = np.bincount(self._labels.indices, minlength=len(self._names))
        return dict(zip(self._names, (counts / self._labels.shape[0]).tolist(), strict=True))

    def of(self, first: int, last: int) -> frozenset[str]:
        """The concepts that any of the rows first … last − 1 carries."""
        begin, end = self._labels.indptr[first], self._labels.indptr[last]
        return frozenset(self._names[self._labels.indices[begin:end]])
