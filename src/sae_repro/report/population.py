"""Single latents on the page: frequent, rare and interesting ones, clusters, examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.report.clusters import clusters_section, concept_names
from sae_repro.report.columns import labels
from sae_repro.report.parts import Section, Table, Value, figure, printed, prose, sae_number
from sae_repro.report.shown import ShownSae
from sae_repro.report.trees import trees_section

LISTED = 5
MEDIUM = (0.01, 0.1)
"""Densities of "interesting" latents: of these, those of the largest mean activation."""
EXAMPLE_CONTEXTS = 5
MEASURED = ("density", "mean_activation", "max_activation")


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


def first_of_each(saes: Sequence[ShownSae]) -> list[ShownSae]:
    """The first SAE of each cell."""
    return [*{sae.cell: sae for sae in reversed(saes)}.values()][::-1]


def population_sections(saes: Sequence[ShownSae], figures: Path) -> Iterator[Section]:
    """Latents of the first SAE of each cell that is shown, and examples of the first of all.

    `figures`: reports/figures, with the correlation maps.
    """
    maps = figure(figures, "correlation_maps")
    firsts = first_of_each(saes)
    if not firsts:
        yield clusters_section((), maps)
        return
    unit = firsts[0].unit
    explained = prose(
        f"Interesting: active on {MEDIUM[0]:.0%} to {MEDIUM[1]:.0%} of the {unit}, by falling mean "
        f"activation. Measured on held-out {unit}."
    )
    tables = [*(_latents(sae) for sae in firsts), *_cosines(firsts)]
    yield Section("latents", "Most and least frequent latents, interesting ones", (),
                  [explained], tables=tables)  # fmt: skip
    yield clusters_section(firsts, maps)
    yield trees_section(firsts)
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
    concepts = concept_names(sae)
    rows = [
        [
            Value(group),
            _link(sae, row["latent"]),
            *(sae_number(sae, row[name], "latents") for name in MEASURED),
            Value(concepts.get(row["latent"]) or printed(None)),
            Value(named[row["latent"]] or printed(None)),
        ]
        for group, frame in groups
        for row in frame.head(LISTED).to_dict("records")
    ]
    heads = ["", "latent", "density", "mean", "largest", "concept", "judge's label"]
    return Table(sae.name, heads, rows)


def _cosines(saes: Sequence[ShownSae]) -> Iterator[Table]:
    """Deciles of the cosine between each atom and its nearest one."""
    quantiles = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    rows = []
    for sae in saes:
        frame = sae.table("dictionary")
        if frame is None or not frame["decoder_max_cosine"].notna().any():
            continue
        values = frame["decoder_max_cosine"].dropna().quantile(list(quantiles))
        numbers = (sae_number(sae, value, "dictionary") for value in values)
        rows.append([Value(sae.name), *numbers])
    if rows:
        heads = ["SAE", *(f"{q:.0%}" for q in quantiles)]
        yield Table("Cosine of each atom with the nearest other one: quantiles", heads, rows)


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
            facts = f"fires on {printed(100 * row['density'])} % of the {sae.unit}"
            if row["concept"] is not None and row["concept"] == row["concept"]:
                facts += f"; best concept {row['concept']}, M {printed(row['M'])}"
            yield Example(sae, int(row["latent"]), group, facts, shown)
