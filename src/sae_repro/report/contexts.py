"""Contexts of latents for the explorer: the largest activations, a sample per quantile, shading."""

from collections import defaultdict
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from sae_repro.params import Report
from sae_repro.readers.documents import TokenDocuments
from sae_repro.report.codes import ValidationRows, looked_up

Contexts = dict[int, list[dict[str, Any]]]
"""Per latent its groups: {name, contexts: [{before, token, after, activation, …}]}."""


def contexts_of(
    contexts: pd.DataFrame,
    quantiles: int,
    around: int,
    a_nk: csc_array,
    rows: ValidationRows,
    corpus: TokenDocuments,
    settings: Report,
) -> Contexts:
    """The contexts of contexts.parquet that are shown, by latent.

    The largest activations first, then a group per quantile, from the highest. `around`: tokens
    before and after the activating one. A context's `shade` has the other tokens that activate the
    latent: [start, end, activation], in UTF-16 units of before + token + after, as browsers count.
    """
    is_top = contexts["kind"] == "top"
    limit = np.where(is_top, settings.contexts, settings.contexts_per_quantile)
    shown = contexts[contexts["rank"].to_numpy() < limit]
    shaded = pd.Series(shades(shown, around, a_nk, rows, corpus), index=shown.index, dtype=object)
    shown = shown.assign(shade=shaded)
    shown = shown.sort_values(["latent", "quantile", "rank"], kind="stable")
    found: Contexts = {}
    records: list[dict[Any, Any]] = shown.to_dict("records")
    for (latent, quantile), group in groupby(records, itemgetter("latent", "quantile")):
        named = {"name": _name(quantile, quantiles), "contexts": [*map(_context, group)]}
        groups = found.setdefault(latent, [])
        # the top group has quantile −1 and stays first; the others from the highest down
        groups.insert(min(len(groups), 1), named)
    return found


def _name(quantile: int, quantiles: int) -> str:
    if quantile < 0:
        return "largest"
    low, high = (100 * part / quantiles for part in (quantile, quantile + 1))
    return f"{low:.3g}–{high:.3g} % of its activations"


def _context(row: dict[Any, Any]) -> dict[str, Any]:
    shade = {"shade": row["shade"]} if row["shade"] else {}
    return {
        "before": row["context_before"],
        "token": row["token"],
        "after": row["context_after"],
        "activation": row["activation"],
        "document": row["document"],
        "position": row["position"],
        **shade,
    }


def shades(
    contexts: pd.DataFrame,
    around: int,
    a_nk: csc_array,
    rows: ValidationRows,
    corpus: TokenDocuments,
) -> list[list[list[float]]]:
    """[start, end, activation] of the tokens of each context that activate its latent, its own not.

    A token whose text can't be told from its neighbours', as pieces of one character, is left out.
    """
    latent, document, position = (
        contexts[name].to_numpy(np.int64) for name in ("latent", "document", "position")
    )
    begin, end = corpus.bounds(document)
    first = np.maximum(begin, begin + position - around) - begin
    offsets = np.arange(-around, around + 1)
    at_co = position[:, None] + offsets
    # of a whole document there is no token (position −1)
    inside = (at_co >= 0) & (at_co < (end - begin)[:, None]) & (position >= 0)[:, None]
    inside[:, around] = False
    context, place = np.nonzero(inside)
    there = at_co[context, place]
    value = looked_up(a_nk, rows.of(document[context], there), latent[context])
    active = value > 0
    context, there, value = context[active], there[active], value[active]
    backend = corpus.tokenizer().backend_tokenizer
    start = begin[context] + first[context]
    heads, wholes = (
        backend.decode_batch(
            corpus.pieces(start, begin[context] + there + more), skip_special_tokens=False
        )
        for more in (0, 1)
    )
    texts = (contexts["context_before"] + contexts["token"] + contexts["context_after"]).tolist()
    found: list[list[list[float]]] = [[] for _ in texts]
    for c, a, head, whole in zip(context.tolist(), value.tolist(), heads, wholes, strict=True):
        if whole.startswith(head) and texts[c].startswith(whole) and head != whole:
            found[c].append([_utf16(head), _utf16(whole), a])
    return found


def _utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def peaks(contexts: pd.DataFrame) -> list[tuple[str, list[int]]]:
    """(token, the latents of whose largest activations one is on it), by token."""
    top = contexts[contexts["kind"] == "top"]
    latents: dict[str, set[int]] = defaultdict(set)
    for token, latent in zip(top["token"].tolist(), top["latent"].tolist(), strict=True):
        latents[token].add(latent)
    return [(token, sorted(latents[token])) for token in sorted(latents)]
