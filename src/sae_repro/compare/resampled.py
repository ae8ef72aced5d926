"""Metrics of every SAE on resampled validation documents, the same documents for all of them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sae_repro.compare.collect import Result
from sae_repro.numerics.bootstrap import LEAST_UNITS, weights

Floats = npt.NDArray[np.float64]
Totals = Mapping[str, Floats]
Resampled = Mapping[str, Mapping[str, Floats]]
"""Per SAE by its name, and metric: its value on each resampling [B]."""


def _ratio(numerator: str, denominator: str) -> Callable[[Totals], Floats]:
    return lambda total: total[numerator] / total[denominator]


def _recovered(total: Totals) -> Floats:
    lost, loss = (total[f"{name}_sum"] - total["ce_clean_sum"] for name in ("ce_sae", "ce_zero"))
    fraction: Floats = 1 - lost / loss
    return fraction


METRICS: dict[str, tuple[Callable[[Totals], Floats], tuple[str, ...]]] = {
    "l0": (_ratio("l0_sum", "tokens"), ("l0_sum", "tokens")),
    "fvu": (_ratio("squared_error", "total_variance"), ("squared_error", "total_variance")),
    "fvu_unseen": (
        _ratio("unseen_squared_error", "unseen_variance"),
        ("unseen_squared_error", "unseen_variance"),
    ),
    "kl": (_ratio("kl_sum", "targets"), ("kl_sum", "targets")),
    "kl_unseen": (
        _ratio("unseen_kl_sum", "unseen_targets"),
        ("unseen_kl_sum", "unseen_targets"),
    ),
    "ce_recovered_zero": (_recovered, ("ce_clean_sum", "ce_sae_sum", "ce_zero_sum")),
}
"""Metric: what it is of the sums over documents, and the columns of documents.parquet it reads."""


def bootstrap(
    results: Sequence[Result], resamplings: int, seed: int
) -> dict[str, dict[str, Floats]]:
    """Each of `METRICS` that documents.parquet has, of every SAE, on the resamplings [B].

    NaN where there are fewer documents than `LEAST_UNITS`, which have no intervals.
    """
    by_documents: dict[bytes, list[Result]] = defaultdict(list)
    for r in (
        sae for cell in results for sae in cell.saes
    ):  # cells on one hook share their documents
        by_documents[r.documents["document"].to_numpy().tobytes()].append(r)
    resampled: dict[str, dict[str, Floats]] = {}
    read = sorted({column for _, columns in METRICS.values() for column in columns})
    for group in by_documents.values():
        sums_cnm = np.stack([r.documents.reindex(columns=read).to_numpy(float) for r in group])
        n = sums_cnm.shape[1]
        # all cells at once: `bootstrap.sums` of each would multiply in another order
        blocks = [
            np.einsum("bn,cnm->cbm", weights_bn, sums_cnm, optimize=True)
            for weights_bn in weights(n, seed, "compare", "bootstrap", resamplings=resamplings)
        ]
        total_cbm = np.concatenate(blocks, axis=1)
        if n < LEAST_UNITS:
            total_cbm[:] = np.nan
        for r, total_bm in zip(group, total_cbm, strict=True):
            total = dict(zip(read, total_bm.T, strict=True))
            with np.errstate(divide="ignore", invalid="ignore"):  # documents without variance
                resampled[r.name] = {
                    name: metric(total)
                    for name, (metric, columns) in METRICS.items()
                    if set(columns) <= set(r.documents.columns)
                }
    return resampled
