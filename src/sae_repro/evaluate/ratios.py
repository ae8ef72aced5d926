"""Headline metrics as ratios of sums over validation documents, with bootstrap intervals.

Documents are what is resampled: tokens of one document are not independent. All SAEs on the same
documents see the same resamplings, so that their differences are paired.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.numerics.bootstrap import LEAST_UNITS, interval, sums

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]
"""Sums by document, [n] each: the columns of documents.parquet."""
Ratio = Callable[[Mapping[str, Any]], Any]
"""A metric of the columns' totals, elementwise where these are arrays over resamplings."""


def _recovered(baseline: str, among: str = "") -> Ratio:
    """(baseline − sae) / (baseline − clean), never clipped."""
    spliced, ablated = _per_target("ce_sae", among), _per_target(baseline, among)
    clean = _per_target("ce_clean", among)
    return lambda total: (ablated(total) - spliced(total)) / (ablated(total) - clean(total))


def _per_target(name: str, among: str = "") -> Ratio:
    return lambda total: total[f"{among}{name}_sum"] / total[f"{among}targets"]


RECONSTRUCTION: dict[str, Ratio] = {
    "l0": lambda total: total["l0_sum"] / total["tokens"],
    "fvu": lambda total: total["squared_error"] / total["total_variance"],
    "explained_variance": lambda total: 1 - total["squared_error"] / total["total_variance"],
    "squared_error_per_token": lambda total: total["squared_error"] / total["tokens"],
    "cosine": lambda total: total["cosine_sum"] / total["cosine_tokens"],
}

UNSEEN: dict[str, Ratio] = {
    "fvu_unseen": lambda total: total["unseen_squared_error"] / total["unseen_variance"],
}
"""Over tokens whose prefix no training window begins with."""

FIDELITY: dict[str, Ratio] = {
    **{name: _per_target(name) for name in ("ce_clean", "ce_sae", "ce_zero", "ce_mean")},
    "ce_recovered_zero": _recovered("ce_zero"),
    "ce_recovered_mean": _recovered("ce_mean"),
    "kl": _per_target("kl"),
}

FIDELITY_UNSEEN: dict[str, Ratio] = {
    "ce_recovered_zero_unseen": _recovered("ce_zero", "unseen_"),
    "kl_unseen": _per_target("kl", "unseen_"),
}
"""Over targets that are predicted at a token of `UNSEEN`."""


def values(ratios: Mapping[str, Ratio], columns: Columns) -> dict[str, float | None]:
    """Each ratio over all documents; None where its denominator is 0."""
    total = {name: column.sum() for name, column in columns.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = {name: float(ratio(total)) for name, ratio in ratios.items()}
    return {name: value if np.isfinite(value) else None for name, value in measured.items()}


def intervals(columns: Columns, seed: int) -> dict[str, list[float]]:
    """95 % interval of each ratio over resampled documents.

    Left out where fewer than `LEAST_UNITS` documents have the tokens or targets, all or unseen,
    that it is measured on.
    """
    names = [name for name in columns if name != "document"]
    resampled = sums(np.stack([columns[name] for name in names], axis=1), seed, "documents")
    total = dict(zip(names, resampled.T, strict=True))
    bounds: dict[str, list[float]] = {}
    for ratios, measured_on in (
        (RECONSTRUCTION, "tokens"),
        (UNSEEN, "unseen_tokens"),
        (FIDELITY, "targets"),
        (FIDELITY_UNSEEN, "unseen_targets"),
    ):
        if np.count_nonzero(columns[measured_on]) < LEAST_UNITS:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            statistics = {name: interval(ratio(total)) for name, ratio in ratios.items()}
        bounds |= {name: ends for name, ends in statistics.items() if ends is not None}
    return bounds
