"""The matched-L0 table, the findings, and the index of all tables."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.findings import AT_EQUAL_L0, write_findings
from sae_repro.compare.frontier import LEAST_CELLS
from sae_repro.compare.matched import Matched, matched, matched_table
from sae_repro.compare.pairs import pairs_table, write_pairs
from sae_repro.compare.ranking import METRICS, Common, rankings
from sae_repro.compare.tables import measured_on, number, unit_in, with_interval, write_table
from sae_repro.compare.verdict import write_verdict
from sae_repro.files import write_text
from sae_repro.metrics import AREAS, Metric, names_in
from sae_repro.metrics.labels import KEY, LABELS, heading
from sae_repro.metrics.listing import table_of
from sae_repro.params import Compare
from sae_repro.remarks import TOLERANCE

INDEX = {
    "verdict": "which SAE to use and whether its features can be believed; a row per architecture",
    "findings": "the results in at most 15 sentences, no stronger than their intervals",
    "cells": "every cell with its choices, all metrics and denominators",
    "seeds": "the SAEs of cells with several seeds, one by one",
    "dead_fraction_below": "the grid: dead latents, as published (largest activation < threshold)",
    "dead_fraction_never": "the grid: latents that never fire on the held-out {unit}",
    "published": "the published GPT-2 grid beside ours: another model, facts and not targets",
    "judged": "monosemantic latents by the judge, laid out as published, beside that grid",
    "judged_cells": "the same for every cell: fractions, intervals, counts, scores of explanations",
    "matched_l0": "architectures at equal L0, with intervals",
    "matched_l0_pairs": "the same, pair by pair as a matrix: lower, higher or undecided",
    "control": "the same autoencoders on known atoms, with the expected and the observed outcome",
    "control_ranking": "architectures ranked on worlds of spec files, and which metric predicts it",
    "monosemantic": "each cell's latents against the concept bank: classes, fractions, intervals",
    "examples": "latents chosen by rule, not by hand, with the contexts in which they fire",
    "monosemantic_by_quantile": "whether weak activations carry a latent's concept less often",
    "dead_curve": "dead latents by the threshold of silence",
    "structure": "splitting, holes, absorption, coverage, probes, correlations, description length",
    "consistency": "how much of a dictionary another seed finds again, and what that predicts",
    "structure_common": "holes, absorption, splitting on pairs testable in all compared cells",
    "steering": "whether latents that mean a class of words make the model write it, at equal KL",
    "scaling": "laws of the loss over width, {unit} and sparsity, and the largest cell predicted",
    "scaling_budgets": "the width and {unit} with the lowest loss at a budget of compute",
    "scaling_cells": "the cells behind the laws, with their residuals",
    "widths": "what a wider SAE adds, splits and keeps of a narrower one; hedging",
    "widths_correlations": "whether an SAE holds the latents of reference SAEs, by their width",
    "widths_equivalent": "the width at which another architecture has the same value",
    "widths_trees": "how latents split from width to width, the largest trees",
    "claims": "what others claim, and whether it is so here: numbers, intervals, verdicts",
    "METRICS": "every metric: definition, unit, denominator, kind of interval, source; and its "
    "card: noise, separation from controls, truth on known atoms, correlation with FVU",
}


def write_matched(
    folder: Path, results: Sequence[Result], settings: Compare, seed: int
) -> list[Matched]:
    """Write matched_l0 and matched_l0_pairs; the rows of the first."""
    rows = matched(results, settings.matched_l0, settings.bootstrap, seed)
    unit = unit_in(results).removesuffix("s")
    frame, pairs = matched_table(rows), pairs_table(rows)
    caption = (
        "# Architectures at matched L0\n\nEach architecture's frontier at the target L0 (latents "
        f"per {unit}), on {measured_on(results)}: a line through its own cells, straight in (log "
        "L0, log FVU), as in figures/frontier. L0 is the held-out one: a cell within "
        f"{TOLERANCE:g} of a target is at it, and the rest of the way is read along the line; at "
        "the edge: the line's range ends as little before the target. Brackets: 95 % interval, "
        "over seeds (Student's t) and documents "
        f"({settings.bootstrap:,} resamplings, the same for all cells), and the error of the line, "
        "from leaving out each inner cell, in quadrature. With one seed it is over documents alone "
        f"(study seed {seed}) and says nothing of another seed. Where three cells or more of a "
        "line have several seeds, its cells with fewer are not on it. At equal L0, absorption "
        "lowers FVU: FVU alone ranks architectures backwards where it matters most. "
        f"{KEY}."
    )
    if not len(frame):
        write_text(folder / "matched_l0.md", caption + "\n\nNo cell finished.\n")
        return []
    caption += _unread(frame)
    read = frame[frame["fvu"].notna()]
    others = [name for name in names_in("matched_l0.md") if name != "fvu"]
    printed = pd.DataFrame(
        {
            "hook": read["hook"],
            "K / D": [f"{x:g}×" for x in read["expansion"]],
            "target L0": [f"{x:g}" for x in read["target_l0"]],
            "architecture": read["architecture"],
            "read": read["reading"],
            heading("fvu"): [
                with_interval(row["fvu"], (row["fvu_low"], row["fvu_high"]))
                for row in read.to_dict("records")
            ],
            "interval over": read["interval_over"],
            **{heading(name): [number(float(v)) for v in read[name]] for name in others},
            "nearest cell's L0": [number(float(v)) for v in read["l0_nearest"]],
        }
    )
    groups = {key: n for n, key in enumerate(zip(frame["hook"], frame["expansion"], strict=True))}
    order = sorted(
        range(len(read)),
        key=lambda i: (
            groups[read["hook"].iloc[i], read["expansion"].iloc[i]],
            read["target_l0"].iloc[i],
            read["fvu"].iloc[i],
        ),
    )
    write_table(folder, "matched_l0", frame, caption, printed.iloc[order], latex=True)
    write_pairs(folder, pairs)
    return rows


def _unread(frame: pd.DataFrame) -> str:
    """Which frontiers have no value at which targets, and why."""
    reasons = {
        "too few cells": f"too few cells ({LEAST_CELLS} on a frontier, or one at the target)",
        "outside": "outside the frontier's range, which is not extrapolated",
    }
    lines = []
    for how, reason in reasons.items():
        rows = frame[frame["reading"] == how]
        targets = rows.groupby(["hook", "expansion", "architecture"], sort=False)["target_l0"]
        listed = [
            f"{architecture} {x:g}× on {hook} at {', '.join(f'{v:g}' for v in values)}"
            for (hook, x, architecture), values in targets
        ]
        if listed:
            lines.append(f"\n\nNo value, {reason}: {'; '.join(listed)}.")
    return "".join(lines)


def write_verdicts(
    folder: Path,
    results: Sequence[Result],
    settings: Compare,
    seed: int,
    flagged: frozenset[str] = frozenset(),
    common: Common | None = None,
) -> None:
    """The tables of architectures at matched L0, and what follows from them: verdict, findings.

    `flagged`: metrics that do not tell trained cells from controls, and from which nothing follows.
    `common`: rates over what all compared SAEs can be asked.
    """
    rows = write_matched(folder, results, settings, seed)
    found = rankings(rows, list(dict.fromkeys([*METRICS, *names_in(AT_EQUAL_L0)])), common)
    write_verdict(folder, results, found, flagged)
    write_findings(folder, results, found, flagged)


def write_metrics(folder: Path, cards: str = "", unit: str = "tokens") -> None:
    """METRICS.md: the registry of metrics, an area a table, and the section of `cards`.

    `unit`: what the SAEs read, tokens or rows.
    """
    parts = [f"## {area}\n\n{_as_markdown(rows)}\n" for area, rows in AREAS.items()]
    given = "" if unit == "tokens" else f" Activations were given: read tokens as {unit}."
    write_text(
        folder / "METRICS.md",
        "# Metrics\n\nEvery metric that a study writes. Denominator: the count of "
        "artifacts/evaluate/<cell>/metrics.json over which it is a ratio or a mean. Of a cell with "
        "several seeds: intervals of fractions of latents are Wilson's over the latents of all "
        "seeds, all others Student's over the seeds, inside the unit's range. `sae-repro metrics "
        f"NAME` prints one row.{given}\n\n" + "\n".join(parts) + cards,
    )


def _as_markdown(rows: Sequence[Metric]) -> str:
    frame = pd.DataFrame(table_of(rows)).map(lambda text: text.replace("|", r"\|"))
    frame["metric"] = "`" + frame["metric"] + "`"
    frame.insert(1, "in tables", [LABELS[row.base] if row.shown else "—" for row in rows])
    return str(frame.to_markdown(index=False, disable_numparse=True))


def write_index(folder: Path, unit: str = "tokens") -> None:
    """README.md of the tables there are; `unit`: what the SAEs read, tokens or rows."""
    lines = [
        f"- [{name}]({name}.md)" + _other_formats(folder, name) + f": {contents.format(unit=unit)}"
        for name, contents in INDEX.items()
        if (folder / f"{name}.md").is_file()
    ]  # fmt: skip
    write_text(folder / "README.md", "# Tables\n\n" + "\n".join(lines) + "\n")


def _other_formats(folder: Path, name: str) -> str:
    links = [
        f"[{end}]({name}.{end})" for end in ("csv", "tex") if (folder / f"{name}.{end}").is_file()
    ]
    return f" ({', '.join(links)})" if links else ""
