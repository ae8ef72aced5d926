"""The columns of the explorer's table of latents, one value per latent in each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csc_array

from sae_repro.report.lens import Tokens
from sae_repro.report.relations import Related
from sae_repro.report.shown import ShownSae

LEAST_POSITIVES = 10
"""Activations without which a latent has no selectivity, as in the published grid."""
FREQUENT = 5
"""Tokens named per latent."""

Array = npt.NDArray[Any]


def columns(
    sae: ShownSae,
    top_tokens: Sequence[Sequence[str]],
    neighbours: Related,
    correlated: Related,
    partner: Mapping[str, Related],
    lens: tuple[Tokens, Tokens] | None,
) -> dict[str, list[Any]]:
    """Each column's K values; None where a latent, or all of them, lack one."""
    latents = sae.latents
    fired = latents["n_fired"].to_numpy(np.int64)
    width = len(latents)
    monosemantic = sae.table("monosemantic")
    stability = latents["stability"] if "stability" in latents else pd.Series([np.nan] * width)
    none: list[None] = [None] * width
    promoted, suppressed = lens or (none, none)
    return {
        "density": latents["density"].tolist(),
        "mean": latents["mean_activation"].where(fired > 0).tolist(),
        "max": latents["max_activation"].where(fired > 0).tolist(),
        "selectivity": selectivity(latents).tolist(),
        "m": _column(monosemantic, "M", width),
        "class": _column(monosemantic, "class", width),
        "concept": _column(monosemantic, "concept", width),
        "label": labels(sae.judged, width),
        "stability": stability.tolist(),
        "alive": (fired > 0).tolist(),
        "neighbours": list(neighbours),
        "correlated": list(correlated),
        "partner": [
            {other: related[k][0] for other, related in partner.items() if related[k]}
            for k in range(width)
        ],
        "lens_up": list(promoted),
        "lens_down": list(suppressed),
        "top_tokens": list(top_tokens),
    }


def selectivity(latents: pd.DataFrame) -> Array:
    """Mean activation / ln(activations + 1) [K]; NaN below 10 activations."""
    fired = latents["n_fired"].to_numpy(np.float64)
    enough = fired >= LEAST_POSITIVES
    logarithm = np.log(np.where(enough, fired, LEAST_POSITIVES) + 1)
    chosen: Array = np.where(enough, latents["mean_activation"].to_numpy() / logarithm, np.nan)
    return chosen


def _column(frame: pd.DataFrame | None, name: str, width: int) -> list[Any]:
    if frame is None:
        return [None] * width
    return [None if pd.isna(value) else value for value in frame[name]]


def labels(judged: Mapping[str, Any], width: int) -> list[str | None]:
    """The judge's explanation of each latent, or else its label; None where it gave neither."""
    named = {int(latent): label for latent, label in judged.get("labels", {}).items()}
    for explained in judged.get("explained", []):
        if explained["explanation"] is not None:
            named[int(explained["latent"])] = explained["explanation"]
    return [named.get(k) for k in range(width)]


def frequent_tokens(a_nk: csc_array, token_n: Array) -> list[list[int]]:
    """Per latent the token ids with the largest sums of its activations, at most 5.

    None where rows are whole documents, which have no token (−1).
    """
    found = []
    for k in range(a_nk.shape[1]):
        column = slice(a_nk.indptr[k], a_nk.indptr[k + 1])
        ids, place = np.unique(token_n[a_nk.indices[column]], return_inverse=True)
        total = np.bincount(place, weights=a_nk.data[column], minlength=len(ids))
        order = np.argsort(-total, kind="stable")
        found.append(ids[order][ids[order] >= 0][:FREQUENT].tolist())
    return found
