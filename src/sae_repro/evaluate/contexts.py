"""Contexts of each latent: its largest activations, and a fair sample of all the others.

The sample is drawn per activation quantile by a hash of (seed, latent, document, position), so that
it is the same whatever the order of the shards or the size of the batches.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.codes import Code, Codes
from sae_repro.evaluate.quantiles import Groups, bin_of, least_of_largest, quantile_edges
from sae_repro.numerics.hashing import uniform_hash
from sae_repro.params import Evaluate
from sae_repro.readers.documents import TokenDocuments

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

UNSORTED = 2**18  # entries that wait for the next sort
KEPT = 2**18  # tokens whose texts are kept, about 60 MiB


class Best:
    """Per group the `m` entries with the least (key, document, position), from a stream."""

    def __init__(self, groups: int, m: int, bound: Array | None = None) -> None:
        self._m = m
        self.bound = np.full(groups, np.inf) if bound is None else bound
        """Per group, the largest key that can still get in."""
        self._kept = [
            np.empty(0, dtype=t) for t in (np.int64, np.float64, np.int64, np.int64, np.float64)
        ]
        self._new: list[list[Array]] = []

    def add(self, group: Array, key: Array, document: Array, position: Array, value: Array) -> None:
        """Offer entries; `value` travels along."""
        eligible = key <= self.bound[group]
        self._new.append([a[eligible] for a in (group, key, document, position, value)])
        if sum(len(new[0]) for new in self._new) > len(self._kept[0]) + UNSORTED:
            self._sort()

    def _sort(self) -> None:
        group, key, document, position, value = (
            np.concatenate(parts) for parts in zip(self._kept, *self._new, strict=True)
        )
        self._new = []
        order = np.lexsort((key, group))
        tied = (np.diff(group[order]) == 0) & (np.diff(key[order]) == 0)
        if tied.any():
            order = np.lexsort((position, document, key, group))
        group = group[order]
        rank = _rank(group)
        keep = rank < self._m
        self._kept = [
            group[keep],
            *(a[order][keep] for a in (key, document, position, value)),
        ]
        full = rank == self._m - 1
        self.bound[group[full]] = key[order][full]

    def entries(self) -> tuple[Array, Array, Array, Array, Array]:
        """(group, rank from 0, document, position, value), by group and rank."""
        self._sort()
        group, _, document, position, value = self._kept
        return group, _rank(group), document, position, value


def _rank(group: Array) -> Array:
    """The number of each entry within its group; `group` ascends."""
    return np.arange(len(group)) - np.searchsorted(group, group, side="left")


def collect(codes: Codes, histogram_kb: Array, settings: Evaluate, seed: int) -> tuple[Best, Best]:
    """(top contexts, grouped by latent; samples, grouped by latent · quantiles + quantile).

    `histogram_kb` [K, BINS] counts the activations of `codes` per bin of `quantiles`. It says from
    where on a latent's activations are among the largest, and how many a quantile has, so that few
    entries are looked at closely.
    """
    m, n = settings.contexts_per_quantile, settings.quantiles
    groups = Groups(quantile_edges(histogram_kb, n))
    count_g = groups.counts(histogram_kb).ravel()
    bound_g, nothing = likely_bound(count_g, m), np.full(len(count_g), -1.0)
    largest = least_of_largest(histogram_kb, settings.top_contexts)
    top = Best(len(histogram_kb), settings.top_contexts, -largest)
    sample = Best(len(count_g), m, bound_g.copy())
    for code in codes():
        entries = _entries(code)
        latent, document, position, value = entries
        top.add(latent, -value, document, position, value)
        _offer(sample, entries, groups, seed, nothing)
    missed = np.bincount(sample.entries()[0], minlength=len(count_g)) < np.minimum(count_g, m)
    if missed.any():
        sample.bound = np.where(missed, 1.0, nothing)
        for code in codes():
            _offer(sample, _entries(code), groups, seed, bound_g)
    return top, sample


def likely_bound(count_g: Array, m: int) -> Array:
    """A bound below which at least `m` of `count_g` uniform draws lie, with few exceptions."""
    bound: Array = np.minimum(1.0, (m + 8 * np.sqrt(m) + 16) / np.maximum(count_g, 1))
    return bound


Entries = tuple[Array, Array, Array, Array]
"""latent, document, position, value, fp64."""


def _entries(code: Code) -> Entries:
    document, position = code.index[:, :2].astype(np.int64).T
    return code.latent, document[code.row], position[code.row], code.value.astype(np.float64)


def _offer(sample: Best, entries: Entries, groups: Groups, seed: int, above_g: Array) -> None:
    """Offer what was drawn above `above_g`, by group."""
    draw = uniform_hash(seed, "contexts", *entries[:3])
    # most entries lie beyond every quantile's bound: spare them the search for theirs
    bound_k = sample.bound.reshape(-1, groups.n).max(axis=1)
    hopeful = np.flatnonzero(draw <= bound_k[entries[0]])
    draw = draw[hopeful]
    latent, document, position, value = (part[hopeful] for part in entries)
    group = latent * groups.n + groups.of(latent, bin_of(value))
    new = draw > above_g[group]
    sample.add(group[new], draw[new], document[new], position[new], value[new])


def table(top: Best, sample: Best, texts: "Texts", settings: Evaluate) -> "pd.DataFrame":
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
    before, token, after = texts.of(frame["document"].to_numpy(), frame["position"].to_numpy())
    return frame.assign(token=token, context_before=before, context_after=after)


@dataclass
class Texts:
    """The texts of tokens, which many SAEs show of the same ones: each is decoded once."""

    corpus: TokenDocuments
    around: int
    """Tokens shown before and after."""
    _known: dict[int, tuple[str, str, str]] = field(default_factory=dict)

    def of(self, document: Array, position: Array) -> tuple[list[str], list[str], list[str]]:
        """The texts before, of, and after the tokens at these places."""
        places = ((document.astype(np.int64) << 32) + position + 1).tolist()
        new = dict.fromkeys(place for place in places if place not in self._known)
        if len(self._known) + len(new) > KEPT:
            self._known.clear()
            new = dict.fromkeys(places)
        place = np.fromiter(new, dtype=np.int64, count=len(new))
        decoded = _texts(self.corpus, place >> 32, (place & (2**32 - 1)) - 1, self.around)
        self._known.update(zip(new, zip(*decoded, strict=True), strict=True))
        texts = [self._known[one] for one in places]
        before, token, after = ([text[i] for text in texts] for i in range(3))
        return before, token, after


def _texts(
    corpus: TokenDocuments, document: Array, position: Array, around: int
) -> tuple[list[str], list[str], list[str]]:
    """The texts before, of, and after each token; of a whole document (position −1) its start.

    Of a token that begins a word, the space before it is its own, with every tokenizer. Only within
    a character of several tokens, each piece is decoded by itself.
    """
    start, end = corpus.bounds(document)
    # of a whole document: nothing before its start, and no token
    at, after = start + np.maximum(position, 0), start + position + 1
    first, last = np.maximum(start, at - around), np.minimum(end, after + around)
    backend = corpus.tokenizer().backend_tokenizer

    def decode(begin: Array, end: Array) -> list[str]:
        ids = corpus.pieces(begin, end)
        texts: list[str] = backend.decode_batch(ids, skip_special_tokens=False)
        return texts

    heads, wholes = decode(first, after), decode(first, last)
    befores = decode(first, at)
    tokens = [head[len(before) :] for before, head in zip(befores, heads, strict=True)]
    afters = [whole[len(head) :] for head, whole in zip(heads, wholes, strict=True)]
    torn = np.array(
        [
            not (head.startswith(before) and whole.startswith(head))
            for before, head, whole in zip(befores, heads, wholes, strict=True)
        ],
        dtype=bool,
    )
    rows = np.flatnonzero(torn)
    for row, token, rest in zip(
        rows, decode(at[torn], after[torn]), decode(after[torn], last[torn]), strict=True
    ):
        tokens[row], afters[row] = token, rest
    return befores, tokens, afters
