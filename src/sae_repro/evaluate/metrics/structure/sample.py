"""The stated sample on which the expensive metrics run: whole documents chosen by a hash.

A document is in it by (seed, document) alone, so that neither shards nor batches matter, and its
rows stand in the bank's order, so that every sum over them has the same bits.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from sae_repro.concepts.bank import ConceptBank, frequent_enough
from sae_repro.evaluate.codes import Codes
from sae_repro.evaluate.held_out import Batch
from sae_repro.numerics.hashing import uniform_hash
from sae_repro.readers.shards import DOCUMENT

Mask = npt.NDArray[np.bool_]

TOKENS = 20_000


@dataclass(frozen=True)
class Sample:
    """One SAE on the n tokens of the sample."""

    x_nd: npt.NDArray[np.float32]
    a_nk: csc_array
    """Canonical activations, fp32: only what is > 0 is stored, rows ascending in each column."""
    d_kd: npt.NDArray[np.float32]
    """Decoder rows, as saved: of any length."""
    mean_d: npt.NDArray[np.float64]
    """x̄ over all evaluated tokens, not only the sample's."""
    bank: ConceptBank
    """The bank of the same n rows, with the concepts that are frequent enough in them."""


@dataclass(frozen=True)
class SampledTokens:
    """The n tokens of the sample, whatever the SAE: all SAEs on a hook share them."""

    bank: ConceptBank
    document: npt.NDArray[np.int64]
    """The sample's documents, sorted."""
    x_nd: npt.NDArray[np.float32]


def sampled(bank: ConceptBank, seed: int, tokens: int = TOKENS) -> Mask:
    """Mask of the rows of `bank` that are in the sample, [N].

    Of either half as many documents, in the order of their hash, as stay within half of `tokens`,
    and one at least.
    """
    document, first, length = np.unique(bank.document, return_index=True, return_counts=True)
    order = np.argsort(uniform_hash(seed, "structure", document), kind="stable")
    chosen = np.zeros(len(document), dtype=bool)
    for half in (True, False):
        candidates = order[bank.fit[first[order]] == half]
        within = np.cumsum(length[candidates]) <= tokens // 2
        chosen[candidates[: max(1, int(within.sum()))]] = True
    return np.repeat(chosen, length)


def restricted(bank: ConceptBank, rows: Mask) -> ConceptBank:
    """The bank of `rows` [N] alone; concepts too rare or too common there are left out, too."""
    labels, fit = csc_array(csr_array(bank.labels)[rows]), bank.fit[rows]
    enough = frequent_enough(labels, fit)
    dropped = Counter(bank.kinds[i] for i in np.flatnonzero(~enough))
    columns = np.flatnonzero(enough)
    return replace(
        bank,
        names=tuple(bank.names[i] for i in columns),
        kinds=tuple(bank.kinds[i] for i in columns),
        labels=labels[:, columns],
        document=bank.document[rows],
        position=bank.position[rows],
        token=bank.token[rows],
        fit=fit,
        left_out=dict(Counter(bank.left_out) + dropped),
    )


def sampled_tokens(
    batches: Iterable[Batch], bank: ConceptBank, seed: int, tokens: int = TOKENS
) -> SampledTokens:
    """The sample's tokens of those that `batches` stream, all rows of `bank` in any order.

    StudyError where a row of a chosen document is not in the bank.
    """
    documents = np.unique(bank.document[sampled(bank, seed, tokens)])
    small = restricted(bank, np.isin(bank.document, documents))
    places: list[npt.NDArray[Any]] = []
    rows: list[npt.NDArray[Any]] = []
    for x, index in batches:
        mask, at = _places(small, documents, index)
        places.append(at)
        rows.append(x.float().cpu().numpy()[mask])
    x_nd = np.zeros((len(small.fit), rows[0].shape[1]), dtype=np.float32)
    x_nd[np.concatenate(places)] = np.concatenate(rows)
    return SampledTokens(small, documents, x_nd)


def collect(
    codes: Codes,
    tokens: SampledTokens,
    mean_d: npt.NDArray[np.float64],
    d_kd: npt.NDArray[Any],
) -> Sample:
    """The sample of the SAE whose canonical activations are `codes` and whose decoder is `d_kd`.

    `codes` stream all rows, in any batches and order; `mean_d` is x̄ over them. StudyError where a
    row of a chosen document is not in the bank.
    """
    n = len(tokens.x_nd)
    rows: list[npt.NDArray[Any]] = []
    latents: list[npt.NDArray[Any]] = []
    values: list[npt.NDArray[Any]] = []
    for code in codes():
        mask, at = _places(tokens.bank, tokens.document, code.index)
        place = np.full(len(mask), -1)
        place[mask] = at
        row = place[code.row]
        inside = row >= 0
        rows.append(row[inside])
        latents.append(code.latent[inside])
        values.append(code.value[inside].astype(np.float32))
    positions = np.concatenate(rows), np.concatenate(latents)
    a_nk = csc_array((np.concatenate(values), positions), shape=(n, len(d_kd)))
    decoder = np.ascontiguousarray(d_kd, dtype=np.float32)
    return Sample(x_nd=tokens.x_nd, a_nk=a_nk, d_kd=decoder, mean_d=mean_d, bank=tokens.bank)


def _places(
    bank: ConceptBank, documents: npt.NDArray[Any], index: npt.NDArray[Any]
) -> tuple[Mask, npt.NDArray[np.int64]]:
    """(which rows of `index` are of `documents`, where these stand in `bank`)."""
    mask: Mask = np.isin(index[:, DOCUMENT], documents)
    at = bank.rows(index[mask]) if mask.any() else np.empty(0, dtype=np.int64)
    return mask, at
