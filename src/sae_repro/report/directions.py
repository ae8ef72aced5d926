"""Directions of concepts by the difference of means, for the cosine of atoms with them.

A concept's direction at a hook is the mean activation of the validation tokens that carry it minus
that of the others (the mass-mean probe of Marks & Tegmark, arXiv 2310.06824).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sae_repro.params import Evaluate
from sae_repro.pins import PinnedFile
from sae_repro.readers.shards import ActivationStore
from sae_repro.report.relations import unit

if TYPE_CHECKING:
    from sae_repro.concepts.bank import ConceptBank

BATCH = 4096  # rows read at once
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Directions:
    """Unit directions of concepts at one hook."""

    place: dict[str, int]
    unit_cd: npt.NDArray[np.float64]

    def cosine(self, concept: str, atom_d: Array) -> float | None:
        """The cosine of an atom with the direction of `concept`; None of an unknown one."""
        if concept not in self.place:
            return None
        return float(unit(atom_d[None])[0] @ self.unit_cd[self.place[concept]])


def directions(bank: "ConceptBank", store: ActivationStore, hook: str) -> Directions:
    """Those of all concepts of `bank` at `hook`; sums run in the order of the rows."""
    labels_nc = csr_array(bank.labels[bank.rows(store.index("validation").whole())])
    carried_nc = csr_array(labels_nc.astype(np.float64))
    sum_cd = np.zeros((len(bank.names), 0))
    all_d: Array = np.zeros(0)
    start = 0
    for x_nd in store.activations(hook, "validation").batches(BATCH):
        wide = np.array(x_nd, dtype=np.float64)
        if not start:
            sum_cd, all_d = np.zeros((len(bank.names), wide.shape[1])), np.zeros(wide.shape[1])
        sum_cd += carried_nc[start : start + len(wide)].T @ wide
        all_d = all_d + wide.sum(axis=0)
        start += len(wide)
    count_c = np.asarray(carried_nc.sum(axis=0)).reshape(-1, 1)
    without_c = np.maximum(start - count_c, 1)
    difference_cd = sum_cd / np.maximum(count_c, 1) - (all_d - sum_cd) / without_c
    return Directions({name: i for i, name in enumerate(bank.names)}, unit(difference_cd))


def concept_bank(
    corpus: Path, store: ActivationStore, evaluate: Evaluate, seed: int
) -> "ConceptBank":
    """The concepts of the validation tokens, as evaluation chose them."""
    from sae_repro.concepts.bank import load_bank
    from sae_repro.pins import pinned_concepts

    labels = evaluate.concepts
    spans: PinnedFile | None = None if labels is None else pinned_concepts(labels, Path())
    index = store.index("validation").whole()
    return load_bank(corpus, index, seed, spans, surface=evaluate.surface)
