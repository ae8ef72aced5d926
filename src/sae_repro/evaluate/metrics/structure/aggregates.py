"""Metrics, counts and 95 % intervals over the tables of concepts and of pairs."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.concepts.bank import ConceptBank
from sae_repro.evaluate.metrics.structure.absorption import STATUSES, TESTABLE
from sae_repro.evaluate.metrics.structure.coverage import HalfPoint
from sae_repro.evaluate.metrics.structure.hierarchy import Hierarchy
from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.bootstrap import LEAST_UNITS, mean_interval
from sae_repro.numerics.intervals import wilson

if TYPE_CHECKING:
    import pandas as pd

MEANS = {
    "recall_at_p80_mean": "recall_at_p80",
    "probe_auc_1": "probe_auc_1",
    "probe_auc_2": "probe_auc_2",
    "probe_auc_5": "probe_auc_5",
    "probe_loss": "probe_loss",
    "splitting_mean": "splitting",
}
"""Metric: the column of the table of concepts whose mean it is, over all that have a value."""
SUFFIX = {"zero": "", "faint": "_faint"}
"""Of a metric of pairs, per silence."""


def summary(
    concepts: "pd.DataFrame",
    pairs: "pd.DataFrame",
    bank: ConceptBank,
    tree: Hierarchy,
    point: HalfPoint,
    seed: int,
) -> Summary:
    """hole_rate and absorption_rate: means over testable pairs, their intervals over parents.

    childless_recall is a mean over parents whose dense probe is good enough, those of low recall
    among them. All others are over concepts. A metric of nothing is None; a mean over fewer than
    five parents or concepts has no interval.
    """
    metrics: dict[str, float | None] = {}
    intervals: dict[str, list[float]] = {}

    def add_mean(name: str, value: npt.NDArray[Any], cluster: npt.NDArray[Any]) -> None:
        metrics[name] = float(value.mean()) if len(value) else None
        if len(np.unique(cluster)) >= LEAST_UNITS:
            intervals[name] = mean_interval(value, seed, name, cluster=cluster)

    def add_fraction(name: str, mask: npt.NDArray[np.bool_]) -> None:
        metrics[name] = float(mask.mean()) if len(mask) else None
        if len(mask):
            intervals[name] = list(wilson(int(mask.sum()), len(mask)))

    for name, column in MEANS.items():
        value = concepts[column].dropna().to_numpy(np.float64)
        add_mean(name, value, np.arange(len(value)))
    add_fraction("fragmented_fraction", concepts["fragmented"].to_numpy(bool))
    add_fraction("coverage", concepts["covered"].to_numpy(bool))
    for kind, part in concepts.groupby("kind", sort=True):
        add_fraction(f"coverage_{kind}", part["covered"].to_numpy(bool))
    metrics["coverage_half_log10_frequency"] = point.log10_frequency
    if point.interval is not None:
        intervals["coverage_half_log10_frequency"] = list(point.interval)
    for silence, suffix in SUFFIX.items():
        rows = pairs[pairs["silence"] == silence]
        tested = rows[rows["status"] == TESTABLE]
        parent = tested["parent"].to_numpy()
        add_mean(f"hole_rate{suffix}", tested["hole_rate"].to_numpy(np.float64), parent)
        add_mean(f"absorption_rate{suffix}", tested["absorption"].to_numpy(np.float64), parent)
        probed = rows[rows["status"].isin([TESTABLE, "low recall"])].drop_duplicates("parent")
        recall = probed["childless_recall"].to_numpy(np.float64)
        add_mean(f"childless_recall{suffix}", recall, np.arange(len(recall)))
    return Summary(metrics, _counts(concepts, pairs, bank, tree), intervals)


def _counts(
    concepts: "pd.DataFrame", pairs: "pd.DataFrame", bank: ConceptBank, tree: Hierarchy
) -> dict[str, int]:
    of_parents = concepts.loc[[family.parent for family in tree.families], "splitting"]
    counts = {
        "tokens_fit": int(bank.fit.sum()),
        "tokens_test": int((~bank.fit).sum()),
        "documents_fit": len(np.unique(bank.document[bank.fit])),
        "documents_test": len(np.unique(bank.document[~bank.fit])),
        "concepts": len(concepts),
        "concepts_left_out": sum(bank.left_out.values()),
        "concepts_without_precise_latent": int((concepts["precise_latent"] < 0).sum()),
        "concepts_duplicate": tree.duplicates,
        "concepts_too_common": tree.too_common,
        "children_small": tree.small_children,
        "parents": len(tree.families),
        "parents_without_split_set": int(of_parents.isna().sum()),
    }
    for silence, suffix in SUFFIX.items():
        rows = pairs[pairs["silence"] == silence]
        counts[f"pairs{suffix}"] = len(rows)
        for status in STATUSES:
            name = f"pairs_{status.replace(' ', '_')}{suffix}"
            counts[name] = int((rows["status"] == status).sum())
    tested = pairs[(pairs["silence"] == "zero") & (pairs["status"] == TESTABLE)]
    counts["child_tokens"] = int(tested["child_tokens"].sum())
    counts["child_tokens_behind"] = int(tested["child_behind"].sum())
    return {f"structure_{name}": n for name, n in counts.items()}
