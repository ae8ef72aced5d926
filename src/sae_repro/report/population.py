"""Single latents on the page: frequent, rare and interesting ones, clusters, examples."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from sae_repro.report.columns import labels
from sae_repro.report.parts import Section, Table, Value, figure, printed, prose
from sae_repro.report.shown import ShownSae

LISTED, CLUSTERS, PAIRS = 5, 8, 8
MEDIUM = (0.01, 0.1)
"""Densities of "interesting" latents: of these, those of the largest mean activation."""
LINKED = 0.3
"""Correlation from which two latents of the map are in one cluster."""
EXAMPLE_CONTEXTS = 5


@dataclass(frozen=True)
class Example:
    """A latent with the contexts of its largest activations."""

    sae: ShownSae
    latent: int
    group: str
    facts: str
    contexts: Sequence[dict[str, Any]]


def interesting(latents: pd.DataFrame) -> pd.DataFrame:
    """Latents of medium density (1–10 % of tokens), by falling mean activation."""
    medium = latents[latents["density"].between(*MEDIUM)]
    return medium.sort_values("mean_activation", ascending=False, kind="stable")


def population_sections(saes: Sequence[ShownSae], figures: Path) -> Iterator[Section]:
    """Latents of the first SAE of each cell that is shown, and examples of the first of all.

    `figures`: reports/figures, with the correlation maps.
    """
    maps = figure(figures, "correlation_maps")
    firsts = [*{sae.cell: sae for sae in reversed(saes)}.values()][::-1]
    if not firsts:
        yield Section("clusters", "Correlated latents", figures=maps)
        return
    explained = prose(
        f"Interesting: active on {MEDIUM[0]:.0%} to {MEDIUM[1]:.0%} of the tokens, by falling mean "
        "activation. Measured on held-out tokens."
    )
    tables = [*(_latents(sae) for sae in firsts), *_cosines(firsts)]
    yield Section("latents", "Most and least frequent latents, interesting ones", (),
                  [explained], tables=tables)  # fmt: skip
    how = prose(
        f"Latents of the correlation map whose activations correlate with r ≥ {LINKED} are linked; "
        "a cluster is what links join. Named by the concepts that most of its latents fit best."
    )
    clusters = [table for sae in firsts for table in _clusters(sae)]
    yield Section("clusters", "Clusters of correlated latents", (), [how], maps, clusters)
    pairs = [table for sae in firsts for table in _pairs(sae)]
    yield Section("absorption", "Absorption: parents that are silent where a child fires",
                  tables=pairs)  # fmt: skip
    rule = prose(
        "Two monosemantic latents with the largest M, and two polysemantic ones of medium density "
        "with the largest mean activation, of the first SAE shown; none is chosen by hand."
    )
    yield Section("examples", "Four latents", (), [rule], latents=[*_examples(firsts[0])])


def _link(sae: ShownSae, latent: int) -> Value:
    return Value(str(latent), href=f"explorer/index.html#/{sae.id}/{latent}")


def _latents(sae: ShownSae) -> Table:
    latents = sae.latents
    fired = latents[latents["n_fired"] > 0].sort_values("density", kind="stable")
    groups = (
        ("most frequent", fired[::-1]),
        ("least frequent", fired),
        ("interesting", interesting(fired)),
    )
    named = labels(sae.judged, len(latents))
    concepts = _concepts(sae)
    rows = [
        [
            Value(group),
            _link(sae, row.latent),
            _measured(sae, row.density),
            _measured(sae, row.mean_activation),
            _measured(sae, row.max_activation),
            Value(concepts.get(row.latent) or printed(None)),
            Value(named[row.latent] or printed(None)),
        ]
        for group, frame in groups
        for row in frame.head(LISTED).itertuples()
    ]
    heads = ["", "latent", "density", "mean", "largest", "concept", "judge's label"]
    return Table(sae.name, heads, rows)


def _measured(sae: ShownSae, value: float) -> Value:
    return Value(printed(value), f"{value}\nartifacts/evaluate/{sae.name}/latents.parquet")


def _concepts(sae: ShownSae) -> dict[int, str]:
    frame = sae.table("monosemantic")
    if frame is None:
        return {}
    known = frame[frame["concept"].notna()]
    return dict(zip(known["latent"].tolist(), known["concept"].tolist(), strict=True))


def _cosines(saes: Sequence[ShownSae]) -> Iterator[Table]:
    """Deciles of the cosine between each atom and its nearest one."""
    quantiles = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    rows = []
    for sae in saes:
        frame = sae.table("dictionary")
        if frame is None or not frame["decoder_max_cosine"].notna().any():
            continue
        values = frame["decoder_max_cosine"].dropna().quantile(list(quantiles))
        where = f"artifacts/evaluate/{sae.name}/dictionary.parquet"
        rows.append([Value(sae.name), *(Value(printed(v), f"{v}\n{where}") for v in values)])
    if rows:
        heads = ["SAE", *(f"{q:.0%}" for q in quantiles)]
        yield Table("Cosine of each atom with the nearest other one: quantiles", heads, rows)


def _clusters(sae: ShownSae) -> Iterator[Table]:
    frame = sae.table("correlation_map")
    if frame is None or frame.empty:
        return
    latents = frame["latent"].tolist()
    linked = frame.drop(columns="latent").to_numpy(np.float64) >= LINKED
    count, member = connected_components(csr_array(linked), directed=False)
    sizes = np.bincount(member, minlength=count)
    several = [int(c) for c in np.argsort(-sizes, kind="stable") if sizes[c] > 1]
    concepts = _concepts(sae)
    rows = []
    for cluster in several[:CLUSTERS]:
        inside = [k for k, c in zip(latents, member.tolist(), strict=True) if c == cluster]
        named = Counter(concepts[k] for k in inside if k in concepts)
        names = sorted(named.items(), key=lambda item: (-item[1], item[0]))[:3]
        rows.append([
            Value(str(len(inside))),
            Value(", ".join(f"{name} ({n})" for name, n in names) or printed(None)),
            Value(", ".join(map(str, sorted(inside)[:12])) + (" …" if len(inside) > 12 else "")),
        ])  # fmt: skip
    alone = int((sizes == 1).sum())
    text = f"{sae.name}: {len(several)} clusters of {len(latents)} latents; {alone} stand alone"
    yield Table(text, ["latents", "concepts", "which"], rows)


def _pairs(sae: ShownSae) -> Iterator[Table]:
    """The testable parents and children with the highest rate of absorption, then of holes."""
    frame = sae.table("pairs")
    if frame is None:
        return
    tested = frame[(frame["status"] == "testable") & (frame["silence"] == "zero")]
    order = ["absorption", "hole_rate", "parent", "child"]
    tested = tested.sort_values(order, ascending=[False, False, True, True], kind="stable")
    where = f"artifacts/evaluate/{sae.name}/pairs.parquet"
    columns = ("childless_recall", "hole_rate", "absorption")
    rows = [
        [Value(row["parent"]), Value(row["child"]), Value(printed(row["child_tokens"])),
         *(Value(printed(row[c]), f"{row[c]}\n{where}") for c in columns)]
        for row in tested.head(PAIRS).to_dict("records")
    ]  # fmt: skip
    if rows:
        heads = ["parent", "child", "tokens of both", "recall without the child", "hole rate",
                 "absorption"]  # fmt: skip
        yield Table(f"{sae.name}: {len(tested)} testable pairs", heads, rows)


def _examples(sae: ShownSae) -> Iterator[Example]:
    frame = sae.table("monosemantic")
    latents = sae.latents
    if frame is None:
        return
    joined = latents.merge(frame, on="latent", validate="one_to_one")
    mono = joined[joined["class"].str.startswith("monosemantic")]
    mono = mono.sort_values(["M", "density"], ascending=False, kind="stable")
    poly = interesting(joined[joined["class"] == "polysemantic"])
    for group, chosen in (("monosemantic", mono), ("polysemantic", poly)):
        for row in chosen.head(2).to_dict("records"):
            contexts = sae.contexts
            own = contexts[(contexts["latent"] == row["latent"]) & (contexts["kind"] == "top")]
            shown = own.sort_values("rank").head(EXAMPLE_CONTEXTS).to_dict("records")
            facts = f"fires on {printed(100 * row['density'])} % of the tokens"
            if row["concept"] is not None and row["concept"] == row["concept"]:
                facts += f"; best concept {row['concept']}, M {printed(row['M'])}"
            yield Example(sae, int(row["latent"]), group, facts, shown)  # type: ignore[arg-type]
