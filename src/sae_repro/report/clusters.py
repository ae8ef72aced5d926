"""Clusters of latents that fire together, counted and named by their concepts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

from sae_repro.report.charts import Option, heat_map
from sae_repro.report.parts import Figure, Section, Table, Value, printed, prose
from sae_repro.report.shown import ShownSae

LISTED, NAMED, SHOWN = 12, 3, 12
TOGETHER = 0.3
"""Mean correlation between two clusters from which they are one."""


@dataclass(frozen=True)
class Clusters:
    """Latents of a correlation map in the order of their clusters, the largest first."""

    latents: npt.NDArray[np.int64]
    correlation: npt.NDArray[np.float64]
    sizes: list[int]
    """Of the clusters, one after another; those of one latent last."""

    @property
    def several(self) -> list[int]:
        """The sizes of those of several latents."""
        return [size for size in self.sizes if size > 1]

    def members(self) -> Iterator[list[int]]:
        """The latents of each cluster of several."""
        end = 0
        for size in self.several:
            end += size
            yield sorted(self.latents[end - size : end].tolist())


def clusters_of(sae: ShownSae) -> Clusters | None:
    """Average linkage of 1 − r, cut where the mean correlation of two clusters falls below .3.

    Single links would join nearly all latents to one: each has some r ≥ .3 with a common one.
    None of an SAE without a correlation map, or with one of fewer than two latents.
    """
    frame = sae.table("correlation_map")
    if frame is None or len(frame) < 2:
        return None
    r = frame.drop(columns="latent").to_numpy(np.float64)
    distance = np.maximum(1 - (r + r.T) / 2, 0)
    np.fill_diagonal(distance, 0)
    joined = linkage(squareform(distance, checks=False), method="average")
    member = fcluster(joined, 1 - TOGETHER, criterion="distance")
    size = np.bincount(member)
    leaves = leaves_list(joined)
    # the leaves of a cluster stay in their order, clusters of one size in theirs
    first = {cluster: place for place, cluster in reversed([*enumerate(member[leaves].tolist())])}
    order = sorted(leaves.tolist(), key=lambda leaf: (-size[member[leaf]], first[member[leaf]]))
    sizes = [*Counter(member[order].tolist()).values()]
    latents = frame["latent"].to_numpy(np.int64)[order]
    return Clusters(latents, r[np.ix_(order, order)], sizes)


def clusters_section(saes: Sequence[ShownSae], maps: Sequence[Figure]) -> Section:
    """The clusters of each SAE, under the maps of the sparsest cells."""
    how = prose(
        "Average linkage of 1 − r of the activations of an SAE's most active latents, cut where "
        f"two clusters correlate with less than {TOGETHER} on average. Named by the concepts that "
        "most of their latents fit best, with how many do."
    )
    tables = [table for sae in saes for table in _table(sae)]
    method = [how] if tables else ()
    return Section("clusters", "Clusters of correlated latents", (), method, maps, tables=tables)


def cluster_charts(saes: Sequence[ShownSae]) -> Iterator[Option]:
    """The correlation map of each SAE, its clusters one after another."""
    for sae in saes:
        found = clusters_of(sae)
        if found is not None:
            title = f"Correlated latents of {sae.name}"
            yield heat_map(title, found.latents.tolist(), found.correlation, found.several)


def concept_names(sae: ShownSae) -> dict[int, str]:
    """The concept that each latent fits best."""
    frame = sae.table("monosemantic")
    if frame is None:
        return {}
    known = frame[frame["concept"].notna()]
    return dict(zip(known["latent"].tolist(), known["concept"].tolist(), strict=True))


def _table(sae: ShownSae) -> Iterator[Table]:
    found = clusters_of(sae)
    if found is None:
        return
    concepts = concept_names(sae)
    rows = []
    for inside in [*found.members()][:LISTED]:
        named = Counter(concepts[k] for k in inside if k in concepts)
        names = sorted(named.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
        rows.append([
            Value(", ".join(f"{name} ({n})" for name, n in names) or printed(None)),
            Value(str(len(inside)), full=str(len(inside)), cells=(sae.cell,),
                  source=f"artifacts/evaluate/{sae.name}/correlation_map.parquet"),
            Value(", ".join(map(str, inside[:SHOWN])) + (" …" if len(inside) > SHOWN else "")),
        ])  # fmt: skip
    several = found.several
    text = (
        f"{sae.name}: {len(several)} clusters hold {sum(several)} of its {len(found.latents)} most "
        "active latents"
    )
    text += f"; the {LISTED} largest" if len(several) > LISTED else ""
    yield Table(text, ["concepts", "latents", "which"], rows)
