"""Where each latent fires: its largest activations, and a fair sample of all the others.

The sample is drawn per activation quantile by a hash of (seed, latent, document, position), so that
it is the same whatever the order of the shards or the size of the batches.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.corpus.reader import TokenDocuments
from sae_repro.evaluate.codes import Codes
from sae_repro.evaluate.quantiles import quantile_edges
from sae_repro.hashing import uniform_hash
from sae_repro.params import Evaluate

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]


class Best:
    """Per group the `m` entries with the least (key, document, position), from a stream."""

    def __init__(self, groups: int, m: int) -> None:
        self._m = m
        self.bound = np.full(groups, np.inf)
        """Per group, the largest key that can still get in."""
        self._kept = [
            np.empty(0, dtype=t) for t in (np.int64, np.float64, np.int64, np.int64, np.float64)
        ]

    def add(self, group: Array, key: Array, document: Array, position: Array, value: Array) -> None:
        """Offer entries; `value` travels along."""
        good = key <= self.bound[group]
        new = [a[good] for a in (group, key, document, position, value)]
        group, key, document, position, value = (
            np.concatenate(pair) for pair in zip(self._kept, new, strict=True)
        )
        order = np.lexsort((position, document, key, group))
        group = group[order]
        first = np.searchsorted(group, group, side="left")
        rank = np.arange(len(group)) - first
        keep = rank < self._m
        self._kept = [
            group[keep],
            *(a[order][keep] for a in (key, document, position, value)),
        ]
        full = rank == self._m - 1
        self.bound[group[full]] = key[order][full]

    def entries(self) -> tuple[Array, Array, Array, Array, Array]:
        """(group, rank from 0, document, position, value), by group and rank."""
        group, _, document, position, value = self._kept
        rank = np.arange(len(group)) - np.searchsorted(group, group, side="left")
        return group, rank, document, position, value


def collect(codes: Codes, histogram_kb: Array, settings: Evaluate, seed: int) -> tuple[Best, Best]:
    """(top contexts, grouped by latent; samples, grouped by latent · quantiles + quantile)."""
    n = settings.quantiles
    edges = quantile_edges(histogram_kb, n)
    top = Best(len(histogram_kb), settings.top_contexts)
    sample = Best(len(histogram_kb) * n, settings.contexts_per_quantile)
    for code in codes():
        latent, value = code.latent, code.value.astype(np.float64)
        document, position = code.index[code.row, :2].astype(np.int64).T
        top.add(latent, -value, document, position, value)
        draw = uniform_hash(seed, latent, document, position)
        # most entries lie beyond every quantile's bound: spare them the search for theirs
        hopeful = draw <= sample.bound.reshape(-1, n).max(axis=1)[latent]
        latent, draw, value = latent[hopeful], draw[hopeful], value[hopeful]
        quantile = (value[:, None] >= edges[latent]).sum(axis=1)
        sample.add(latent * n + quantile, draw, document[hopeful], position[hopeful], value)
    return top, sample


def table(top: Best, sample: Best, corpus: TokenDocuments, settings: Evaluate) -> "pd.DataFrame":
    """contexts.parquet: one row per context, with the tokens around the activating one."""
    import pandas as pd

    parts = []
    for kind, best in (("top", top), ("quantile", sample)):
        group, rank, document, position, value = best.entries()
        latent, quantile = (
            (group, np.full(len(group), -1))
            if kind == "top"
            else np.divmod(group, settings.quantiles)
        )
        parts.append(
            pd.DataFrame(
                {
                    "latent": latent.astype(np.int32),
                    "kind": kind,
                    "quantile": quantile.astype(np.int8),
                    "rank": rank.astype(np.int16),
                    "activation": value,
                    "document": document,
                    "position": position.astype(np.int32),
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True)
    before, token, after = _texts(
        corpus, frame["document"].to_numpy(), frame["position"].to_numpy(), settings.context_tokens
    )
    return frame.assign(token=token, context_before=before, context_after=after)


def _texts(
    corpus: TokenDocuments, document: Array, position: Array, around: int
) -> tuple[list[str], list[str], list[str]]:
    """The texts before, of, and after each token; of a whole document (position −1) its start."""
    before: list[list[int]] = []
    token: list[list[int]] = []
    after: list[list[int]] = []
    for d, p in zip(document.tolist(), position.tolist(), strict=True):
        ids = corpus.document(d)
        before.append(ids[max(0, p - around) : max(0, p)].tolist())
        token.append(ids[p : p + 1].tolist() if p >= 0 else [])
        after.append(ids[p + 1 : p + 1 + around].tolist())
    backend = corpus.tokenizer().backend_tokenizer

    def decode(ids: Sequence[list[int]]) -> list[str]:
        texts: list[str] = backend.decode_batch(list(ids), skip_special_tokens=False)
        return texts

    return decode(before), decode(token), decode(after)
