"""The matched-L0 table, the findings, and the index of all tables."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.compare import features
from sae_repro.compare.collect import Result
from sae_repro.compare.matched import findings, matched_table
from sae_repro.compare.tables import measured_on, number, write_table
from sae_repro.files import write_text
from sae_repro.metrics import AREAS, Metric
from sae_repro.metrics.listing import table_of
from sae_repro.params import Compare

INDEX = {
    "cells": "every cell with its choices, all metrics and denominators",
    "seeds": "the SAEs of cells with several seeds, one by one",
    "dead_fraction_below": "the grid: dead latents, as published (largest activation < threshold)",
    "dead_fraction_never": "the grid: latents that never fire on the held-out tokens",
    "published": "the published GPT-2 grid beside ours: another model, facts and not targets",
    "judged": "monosemantic latents by the judge, laid out as published, beside that grid",
    "judged_cells": "the same for every cell: fractions, intervals, counts, scores of explanations",
    "matched_l0": "architectures at equal L0, with intervals",
    "matched_l0_pairs": "the same, pair by pair: which differences are distinguishable",
    "control": "the same autoencoders on known atoms, with the expected and the observed outcome",
    "monosemantic": "each cell's latents against the concept bank: classes, fractions, intervals",
    "structure": "splitting, holes, absorption, coverage, probes, correlations, description length",
    "findings": "the results in sentences, no stronger than their intervals",
    "METRICS": "every metric: definition, unit, denominator, kind of interval, source",
}


def write_matched(
    folder: Path, results: Sequence[Result], settings: Compare, seed: int
) -> list[str]:
    """Write matched_l0 and matched_l0_pairs; the sentences that follow from them."""
    frame, pairs = matched_table(results, settings.matched_l0, settings.bootstrap, seed)
    caption = (
        "# Architectures at matched L0\n\nEach architecture's frontier, linear in log L0 between "
        f"its own cells, on {measured_on(results)}; "
        "a target outside an architecture's range is not extrapolated. Brackets: 95 % percentile "
        f"interval of {settings.bootstrap:,} resamplings of the documents, "
        f"the same for all cells; {_scope(results, seed)}. At equal L0, absorption lowers FVU: FVU "
        "alone ranks architectures backwards where it matters most."
    )
    if not len(frame):
        write_text(folder / "matched_l0.md", caption + "\n\nNo cell finished.\n")
        return []
    printed = pd.DataFrame(
        {
            "hook": frame["hook"],
            "expansion": [f"{x:g}x" for x in frame["expansion"]],
            "architecture": frame["architecture"],
            "target L0": [f"{x:g}" for x in frame["target_l0"]],
            "FVU": [_with_interval(row) for row in frame.to_dict("records")],
            "CE recovered (zero)": [number(v) for v in frame["ce_recovered_zero"]],
            "dead (never)": [number(v) for v in frame["dead_fraction_never"]],
            "cells": frame["cells"],
        }
    )
    write_table(folder, "matched_l0", frame, caption, printed)
    text = pairs.map(lambda v: number(v) if isinstance(v, float) else v)
    write_table(
        folder,
        "matched_l0_pairs",
        pairs,
        "# Pairs at matched L0\n\nFVU of a minus FVU of b over the same resampled documents; "
        "`a_is` says lower or higher only where the 95 % interval leaves out 0.",
        text,
    )
    return findings(pairs)


def write_findings(folder: Path, results: Sequence[Result], settings: Compare, seed: int) -> None:
    """findings.md, and the tables of architectures at matched L0 from which it begins."""
    at_matched_l0 = write_matched(folder, results, settings, seed)
    parts = {
        "Architectures at matched L0": (
            at_matched_l0 or ["No two architectures overlap at a target L0."],
            f"From matched_l0_pairs. The intervals are over documents; {_scope(results, seed)}.",
        ),
        "Monosemanticity and structure": (
            list(features.sentences(results)) or ["None of these metrics was measured."],
            "From the tables monosemantic and structure. The intervals are over latents, concepts "
            "or parents of these SAEs; one seed of a cell says nothing of another.",
        ),
    }
    text = "\n".join(
        f"## {title}\n\n{scope}\n\n" + "".join(f"- {sentence}\n" for sentence in sentences)
        for title, (sentences, scope) in parts.items()
    )
    write_text(folder / "findings.md", f"# Findings\n\nGenerated from intervals.\n\n{text}")


def _scope(results: Sequence[Result], seed: int) -> str:
    """The variation that the intervals leave out."""
    several = [r for r in results if len(r.saes) > 1 and not r.negative]
    if not several:
        return (
            "they tell how well these SAEs are measured, not how another seed would train (seed "
            f"{seed}): another may rank close architectures otherwise"
        )
    return (
        f"the seeds of cells that have several ({len(several)} of {len(results)}) are resampled "
        "too, and a handful of them gives too narrow an interval; of the others, another seed may "
        "rank close architectures otherwise"
    )


def _with_interval(row: Mapping[Hashable, Any]) -> str:
    if row["fvu"] != row["fvu"]:
        return f"outside [{row['l0_from']:.3g}, {row['l0_to']:.3g}]"
    return f"{row['fvu']:.4f} [{row['fvu_low']:.4f}, {row['fvu_high']:.4f}]"


def write_metrics(folder: Path) -> None:
    """METRICS.md: the registry of metrics, an area a table."""
    parts = [f"## {area}\n\n{_as_markdown(rows)}\n" for area, rows in AREAS.items()]
    write_text(
        folder / "METRICS.md",
        "# Metrics\n\nEvery metric that a study writes. Denominator: the count of "
        "artifacts/evaluate/<cell>/metrics.json over which it is a ratio or a mean. Of a cell with "
        "several seeds: intervals of fractions of latents are Wilson's over the latents of all "
        "seeds, all others Student's over the seeds, inside the unit's range. `sae-repro metrics "
        "NAME` prints one row.\n\n" + "\n".join(parts),
    )


def _as_markdown(rows: Sequence[Metric]) -> str:
    frame = pd.DataFrame(table_of(rows)).map(lambda text: text.replace("|", r"\|"))
    frame["metric"] = "`" + frame["metric"] + "`"
    return str(frame.to_markdown(index=False, disable_numparse=True))


def write_index(folder: Path) -> None:
    """README.md of the tables there are."""
    lines = [
        f"- [{name}]({name}.md)" + (f" ([csv]({name}.csv))" if (folder / f"{name}.csv").is_file()
                                    else "") + f": {contents}"
        for name, contents in INDEX.items()
        if (folder / f"{name}.md").is_file()
    ]  # fmt: skip
    write_text(folder / "README.md", "# Tables\n\n" + "\n".join(lines) + "\n")
