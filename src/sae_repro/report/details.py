"""The page of one latent in the explorer: histogram, contexts, concepts, decoder weights."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from sae_repro.report.contexts import Contexts
from sae_repro.report.directions import Directions
from sae_repro.report.layout import Map
from sae_repro.report.shown import ShownSae

BINS, WEIGHT_BINS = 20, 12
EXTREME = 5
"""Decoder weights shown of either sign."""
SPECIFIC = 3
"""The judge's mark for the best fit."""
Array = npt.NDArray[Any]
Scores = Mapping[int, list[list[Any]]]
"""Per latent, rows that begin with a name."""


def details(
    latent: int,
    a_nk: csc_array,
    atom_d: Array,
    contexts: Contexts,
    concepts: Scores,
    judged: "Judged",
    around: Map,
    kin: Mapping[str, Any],
) -> dict[str, Any]:
    """The entry of one latent in a file of contexts."""
    column = a_nk.data[a_nk.indptr[latent] : a_nk.indptr[latent + 1]]
    shown = histogram(column, 0.0, BINS)
    if shown is not None and latent in judged.specificity:
        shown["specificity"] = by_bin(shown["counts"], judged.specificity[latent])
    return {
        "histogram": shown,
        "quantiles": contexts.get(latent, []),
        "concepts": concepts.get(latent, []),
        "decoder": weights(atom_d),
        **({"judge": judged.scores[latent]} if latent in judged.scores else {}),
        **({"map": around} if around else {}),
        **kin,
    }


def histogram(values: Array, low: float | None, bins: int) -> dict[str, Any] | None:
    """{edges, counts} of `values` in equal bins from `low` (their least) to the largest.

    None of no values; of equal ones, one bin.
    """
    if not len(values):
        return None
    wide = values.astype(np.float64)
    least, most = wide.min() if low is None else low, wide.max()
    bins = bins if most > least else 1
    step = (most - least) / bins if most > least else 1.0
    place = np.minimum(((wide - least) / step).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    return {"edges": (least + step * np.arange(bins + 1)).tolist(), "counts": counts.tolist()}


def by_bin(counts: list[int], means: list[float | None]) -> list[float | None]:
    """Specificity per bin of a histogram, from its `means` by activation quantile.

    That of the quantile which the bin's median activation is in; None of an empty bin.
    """
    upto, found = 0, list[float | None]()
    for count in counts:
        median = upto + count // 2
        found.append(means[median * len(means) // sum(counts)] if count else None)
        upto += count
    return found


def weights(atom_d: Array) -> dict[str, Any]:
    """An atom's largest and smallest entries, as [dimension, value], and all as a histogram."""
    rising = np.argsort(atom_d, kind="stable")
    top, bottom = rising[::-1][:EXTREME], rising[:EXTREME]
    return {
        "top": [[int(d), float(atom_d[d])] for d in top if atom_d[d] > 0],
        "bottom": [[int(d), float(atom_d[d])] for d in bottom if atom_d[d] < 0],
        "histogram": histogram(atom_d, None, WEIGHT_BINS),
    }


def concepts_by_latent(
    sae: ShownSae, atoms_kd: Array, known: Directions | None
) -> dict[int, list[list[Any]]]:
    """[name, M, φ, cosine] of the concept that each latent fits best, then of those it is best at.

    The second have no M: they are the concepts for which no other latent has a larger φ. The
    cosine is the atom's with the concept's difference of means.
    """
    found: dict[int, list[list[Any]]] = defaultdict(list)
    monosemantic, concepts = sae.table("monosemantic"), sae.table("concepts")
    if monosemantic is not None:
        scored = monosemantic[monosemantic["concept"].notna() & monosemantic["M"].notna()]
        for latent, *row in scored[["latent", "concept", "M", "phi"]].itertuples(index=False):
            found[int(latent)].append(list(row))
    if concepts is not None:
        best = concepts[concepts["latent"] >= 0]
        best = best.sort_values(["phi", "concept"], ascending=[False, True], kind="stable")
        for latent, name, phi in best[["latent", "concept", "phi"]].itertuples(index=False):
            if all(name != row[0] for row in found[int(latent)]):
                found[int(latent)].append([name, None, phi])
    for latent, rows in found.items():
        for row in rows:
            row.append(known.cosine(row[0], atoms_kd[latent]) if known is not None else None)
    return dict(found)


@dataclass(frozen=True)
class Judged:
    """The judge's scores of the latents that it explained."""

    scores: dict[int, list[list[Any]]] = field(default_factory=dict)
    """[score, balanced accuracy] of the explanation."""
    specificity: dict[int, list[float | None]] = field(default_factory=dict)
    """Its mean fit to the marked token by activation quantile, as a fraction of the best fit."""


def judge_scores(sae: ShownSae) -> Judged:
    """What the judge's explanations of latents scored; empty where none was asked."""
    found = Judged()
    for explained in sae.judged.get("explained", []):
        if specificity := explained.get("specificity"):
            # the first is that of contexts without the latent
            found.specificity[int(explained["latent"])] = [
                None if mean is None else mean / SPECIFIC for mean in specificity["mean"][1:]
            ]
        scored = [
            [f"{name} (balanced accuracy)", value["balanced_accuracy"]]
            for name, value in explained.items()
            if isinstance(value, dict) and value.get("balanced_accuracy") is not None
        ]
        if scored:
            found.scores[int(explained["latent"])] = scored
    return found
