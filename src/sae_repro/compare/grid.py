"""The vanilla grid, laid out as published: dead latents by λ, expansion and resampling."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sae_repro.compare import published
from sae_repro.compare.collect import Result
from sae_repro.compare.differences import DIFFERENT, told_apart
from sae_repro.compare.tables import (
    ABSENT,
    measured_on,
    number,
    unit_in,
    with_interval,
    write_table,
)

BLOCKS = ((False, "no resampling"), (True, "resampling"))


def grid_of(results: Sequence[Result]) -> dict[tuple[bool, float, float], Result]:
    """The finished vanilla cells by (resampling, λ, expansion): relu, l1, no prefixes, first hook.

    Resampling is either kind, ours or as published. Where a study has several such cells (other
    seeds, say), the first in params.yaml stands.
    """
    grid: dict[tuple[bool, float, float], Result] = {}
    trained = [r for r in results if not r.negative]
    hook = next((r.hook for r in trained), None)
    for r in trained:
        c = r.cell
        vanilla = c.activation == "relu" and c.penalty == "l1" and c.prefixes == "none"
        vanilla = vanilla and c.target_l0 is None
        if r.ok and vanilla and not c.revival_row.auxiliary and r.hook == hook:
            assert c.lambda_ is not None
            grid.setdefault((c.resamples, c.lambda_, c.expansion), r)
    return grid


def dead_table(results: Sequence[Result], metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(long table for machines, wide table for people) of a dead fraction over the grid."""
    grid = grid_of(results)
    lambdas = sorted({key[1] for key in grid}, reverse=True)
    expansions = sorted({key[2] for key in grid})
    long, wide = [], []
    for resampling, block in BLOCKS:
        for lam in lambdas:
            row = {"": block, "λ": f"{lam:g}"}
            for x in expansions:
                r = grid.get((resampling, lam, x))
                row[f"{x:g}×"] = (
                    ABSENT if r is None else with_interval(r.metrics[metric], r.interval(metric))
                )
                low, high = r.measured["intervals"][metric] if r else (None, None)
                long.append(
                    {
                        "block": block,
                        "lambda": lam,
                        "expansion": x,
                        "cell": r.name if r else None,
                        "dead": r.metrics[metric] if r else None,
                        "low": low,
                        "high": high,
                        "latents": r.measured["counts"]["latents"] if r else None,
                        "seeds": len(r.saes) if r else None,
                    }
                )
            wide.append(row)
    for lam in lambdas:
        row = {"": "difference", "λ": f"{lam:g}"}
        for x in expansions:
            pair = grid.get((False, lam, x)), grid.get((True, lam, x))
            row[f"{x:g}×"] = _difference(*pair, metric)
        wide.append(row)
    return pd.DataFrame(long), pd.DataFrame(wide)


def _difference(without: Result | None, with_: Result | None, metric: str) -> str:
    if without is None or with_ is None:
        return ABSENT
    difference = (with_.metrics[metric] or 0) - (without.metrics[metric] or 0)
    sign = "+" if difference > 0 else ""
    verdict = told_apart(without, with_, metric)
    return f"{sign}{number(difference)}" + ("" if verdict == DIFFERENT else f" ({verdict})")


def published_table(results: Sequence[Result]) -> pd.DataFrame:
    """The published GPT-2 numbers, and our dead latents at the same (λ, expansion, resampling)."""
    grid = grid_of(results)
    rows = []
    for resampling, block in BLOCKS:
        for lam in published.LAMBDAS:
            for x in published.EXPANSIONS:
                cell = grid.get((resampling, lam, float(x)))
                dead = cell.metrics["dead_fraction_below"] if cell else None
                rows.append(
                    {
                        "block": block,
                        "lambda": lam,
                        "expansion": x,
                        **{
                            f"published_gpt2_{kind}": published.fraction(kind, resampling, lam, x)
                            for kind in ("dead", "monosemantic")
                        },
                        "this_study_dead": dead,
                        "this_study_cell": cell.name if cell else None,
                    }
                )
    return pd.DataFrame(rows)


def write_grid(folder: Path, results: Sequence[Result], seed: int) -> None:
    """dead_fraction_below, dead_fraction_never and published."""
    unit = unit_in(results)
    meaning = {
        "dead_fraction_below": "a latent is dead if its largest activation stays below "
        "evaluate.dead_threshold, as in the published grid; this depends on the activations' scale",
        "dead_fraction_never": f"a latent is dead if it never fires on these {unit}",
    }
    if grid_of(results):
        for metric, definition in meaning.items():
            long, wide = dead_table(results, metric)
            pooled = (
                " A cell with several seeds shows their mean; its interval is over the latents of "
                "all seeds, widened by the variance between seeds."
                if any(len(r.members) > 1 for r in grid_of(results).values())
                else ""
            )
            caption = (
                f"# Dead latents, fraction of K ({metric})\n\nReLU + L1; {definition}. Measured on "
                f"{measured_on(results)}, seed {seed}. In brackets: 95 % Wilson interval over the "
                "cell's latents. Difference: resampling − no resampling; of cells with one seed "
                "none is claimed, and of several it is not distinguishable where the intervals "
                f"overlap or Welch's over the seeds holds 0.{pooled}"
            )
            write_table(folder, metric, long, caption, wide, latex=True)
    frame = published_table(results)
    text = frame.map(lambda v: number(v) if isinstance(v, float) else v or ABSENT)
    printed = text.rename(
        columns={
            "block": "",
            "lambda": "λ",
            "expansion": "K / D",
            "published_gpt2_dead": "published: dead ↓",
            "published_gpt2_monosemantic": "published: monosemantic ↑",
            "this_study_dead": "this study: dead ↓",
            "this_study_cell": "cell",
        }
    )
    caption = (
        "# Published numbers for comparison: another model and corpus\n\nNo targets; fractions of "
        "latents. Published: "
        f"{published.SETTING}; monosemantic = fraction of {published.JUDGED_LATENTS} latents that "
        "an LLM judge labelled (at 0.8 its 95 % interval is "
        f"{published.INTERVAL_AT_08}). "
        f"This study: dead_fraction_below on {measured_on(results)}."
    )
    write_table(folder, "published", frame, caption, printed)
