"""Tables of the judge: the published grid's fractions beside ours, and a row per cell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.compare import published
from sae_repro.compare.collect import Result
from sae_repro.compare.grid import BLOCKS, grid_of
from sae_repro.compare.tables import ABSENT, number, with_interval, write_table
from sae_repro.files import read_json
from sae_repro.numerics.intervals import wilson_over_groups
from sae_repro.params import SCORE_INFO

GROUPS = ("extremes", "top", "bottom", "uniform")
COUNTS = ("labelled", "answered", "unparsable")
WHOLE = (*COUNTS, "tokens", "latents", "seeds", "positives", "negatives", "constant", "parsed")
"""Suffixes of the columns that hold counts."""

Judged = Mapping[str, Mapping[str, Any]]


def read_judged(
    results: Sequence[Result], artifacts: Path
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """(the judge's summary of every judged SAE by its name, why the others have none)."""
    saes = [sae.name for r in results for sae in r.members]
    summaries = {name: read_json(artifacts / "judge" / f"{name}.json") for name in saes}
    judged = {name: summary for name, summary in summaries.items() if "rates" in summary}
    reasons = [f"{name}: {summary['reason']}" for name, summary in summaries.items()
               if name not in judged]  # fmt: skip
    return judged, reasons


def grid_table(results: Sequence[Result], judged: Judged) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(long table for machines, wide table for people): ours, then the published model's.

    Fractions of the most and the least selective latents that the judge labelled.
    """
    grid = grid_of(results)
    lambdas = sorted({key[1] for key in grid} | set(published.LAMBDAS), reverse=True)
    expansions = sorted({key[2] for key in grid} | set(map(float, published.EXPANSIONS)))
    long, wide = [], []
    for resampling, block in BLOCKS:
        for lam in lambdas:
            row = {"model": "this study", "": block, "λ": f"{lam:g}"}
            for x in expansions:
                r = grid.get((resampling, lam, x))
                summary = _over_seeds(r, judged) if r else {}
                row[f"{x:g}×"] = _fraction(summary)
                long.append(
                    {
                        "block": block,
                        "lambda": lam,
                        "expansion": x,
                        "cell": r.name if r else None,
                        "seeds": summary.get("seeds"),
                        **_rate_columns("extremes", summary),
                        "published_gpt2_monosemantic": published.fraction(
                            "monosemantic", resampling, lam, x
                        ),
                    }
                )
            wide.append(row)
    for resampling, block in BLOCKS:
        for lam in published.LAMBDAS:
            values = (published.fraction("monosemantic", resampling, lam, x) for x in expansions)
            text = map(number, values)
            names = (f"{x:g}×" for x in expansions)
            wide.append(
                {"model": "published: GPT-2 small", "": block, "λ": f"{lam:g}",
                 **dict(zip(names, text, strict=True))}
            )  # fmt: skip
    return _with_integer_counts(pd.DataFrame(long)), pd.DataFrame(wide)


def _over_seeds(r: Result, judged: Judged) -> Mapping[str, Any]:
    """The labelled fraction over the extremes of all judged seeds together, and its interval."""
    seeds = [judged[sae.name]["rates"]["extremes"] for sae in r.members if sae.name in judged]
    counts = {name: sum(group[name] for group in seeds) for name in COUNTS}
    if not counts["answered"]:
        return {**counts, "seeds": len(seeds)}
    groups = [[group[name] for group in seeds] for name in ("labelled", "answered")]
    return {
        "rate": counts["labelled"] / counts["answered"],
        "interval": wilson_over_groups(groups[0], groups[1]),
        **counts,
        "seeds": len(seeds),
    }


def _fraction(labelled: Mapping[str, Any]) -> str:
    return with_interval(labelled.get("rate"), labelled.get("interval"))


def _rate_columns(group: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    low, high = summary.get("interval", (None, None))
    counts = {f"{group}_{name}": summary.get(name) for name in COUNTS}
    return {
        f"{group}_rate": summary.get("rate"),
        f"{group}_low": low,
        f"{group}_high": high,
        **counts,
    }


def cells_table(judged: Judged) -> pd.DataFrame:
    """A row per judged SAE: labelled fractions, intervals, counts, scores, agreement of M."""
    rows = []
    for name, summary in judged.items():
        columns: dict[str, Any] = {"cell": name, "judge": summary["judge"], **summary["counts"]}
        for group in GROUPS:
            columns |= _rate_columns(group, summary["rates"][group])
        for score, value in summary["scores"].items():
            columns |= _score_columns(score, value)
        columns |= _agreement_columns(summary["agreement"] or {})
        for prompt, counts in summary["answers"].items():
            columns |= {f"{prompt}_answers_{suffix}": n for suffix, n in counts.items()}
        rows.append(columns)
    return _with_integer_counts(pd.DataFrame(rows))


def _with_integer_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with counts as integers, also in columns with gaps."""
    return frame.astype({name: "Int64" for name in frame if str(name).endswith(WHOLE)})


def _score_columns(score: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {}
    flat = {k: v for k, v in value.items() if not isinstance(v, list) and k != "interval"}
    if value.get("interval"):
        flat |= dict(zip(("low", "high"), value["interval"], strict=True))
    lists = {
        f"{name}_{bin_}": v
        for name, values in value.items()
        if isinstance(values, list) and name != "interval"
        for bin_, v in enumerate(values)
    }
    return {f"{score}_{name}": v for name, v in (flat | lists).items()}


def _agreement_columns(agreement: Mapping[str, Any]) -> dict[str, Any]:
    low, high = agreement.get("interval") or (None, None)
    return {
        "auc_of_M": agreement.get("auc"),
        "auc_low": low,
        "auc_high": high,
        "auc_latents": agreement.get("latents"),
        "auc_without_answer": agreement.get("without_answer"),
        "auc_without_M": agreement.get("without_m"),
    }


def write_judged(folder: Path, results: Sequence[Result], artifacts: Path, seed: int) -> None:
    """judged (the grid) and judged_cells; nothing where nothing was judged."""
    judged, without = read_judged(results, artifacts)
    if not judged:
        return
    judge = next(iter(judged.values()))["judge"]
    described = (
        "the text's own concepts: a label is a concept whose fraction of the latent's contexts, "
        "corrected for chance, reaches judge.concept_share. The judge is no language model"
        if judge == "concepts"
        else f"{judge}, a language model"
    )
    if any(sae.name in judged for r in grid_of(results).values() for sae in r.members):
        long, wide = grid_table(results, judged)
        caption = (
            "# Monosemantic latents, fraction ↑, laid out as published\n\nFraction of the most and "
            f"the least selective latents (half each, at most {published.JUDGED_LATENTS}) that the "
            "judge labelled instead of calling them polysemantic; in brackets its 95 % Wilson "
            f"interval. Judge: {described}. "
            "Extremes are not the population: judged_cells has a uniform sample beside them. "
            "Published, below: **another model, corpus and judge**, facts and no targets; "
            f"{published.SUBJECT}, {published.JUDGED_LATENTS} latents each (at 0.8 the interval "
            f"is {published.INTERVAL_AT_08}). Of a cell with several seeds, the latents of "
            f"all, the interval widened by the variance between seeds. Seed {seed}."
        )
        write_table(folder, "judged", long, caption, wide, latex=True)
    caption = _caption(judge, described, seed)
    if without:
        caption += "\n\n**Not judged:** " + "; ".join(without)
    write_table(folder, "judged_cells", cells_table(judged), caption, _printed(judged))


def _caption(judge: str, described: str, seed: int) -> str:
    agreement = (
        "Agreement of M with a judge: not measured, for the judge is no language model."
        if judge == "concepts"
        else "AUC of M: how well M tells the labelled latents of the uniform sample from the "
        "polysemantic ones (0.5: not at all)."
    )
    return (
        f"# Every cell as judged\n\nJudge: {described}. Labelled ↑: fraction [95 % Wilson "
        "interval] (labelled / answered): the most and least selective latents, and a uniform "
        "sample of alive ones; answers that could not be read are counted as unparsable, not as "
        "either. Explanations are written from documents of one half and scored on those of the "
        "other: balanced accuracy [95 % interval over resampled latents] of telling contexts with "
        "the latent's firing from silent ones (detection: over the whole context; fuzzing: at the "
        f"marked token), half of these hard; 0.5 is chance. {agreement} Seed {seed}."
    )


def _printed(judged: Judged) -> pd.DataFrame:
    rows = []
    for name, summary in judged.items():
        rates, scores = summary["rates"], summary["scores"]
        unparsable = sum(c["unparsable"] for c in summary["answers"].values())
        row = {
            "cell": name,
            "extremes": _counted(rates["extremes"]),
            "most selective": _counted(rates["top"]),
            "least selective": _counted(rates["bottom"]),
            "uniform sample": _counted(rates["uniform"]),
            "explained": str(len(summary["explained"])),
        }
        for score, value in scores.items():
            row[score] = _score(score, value)
        agreement = summary["agreement"]
        row["AUC of M"] = "not measured" if agreement is None else _interval(agreement, "auc")
        rows.append({**row, "unparsable": str(unparsable)})
    return pd.DataFrame(rows)


def _counted(summary: Mapping[str, Any]) -> str:
    return f"{_fraction(summary)} ({summary['labelled']}/{summary['answered']})"


def _score(score: str, value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "not measured"
    name = SCORE_INFO[score].headline
    if isinstance(value[name], list):
        return " / ".join(number(mean, 2) for mean in value[name])
    return _interval(value, name)


def _interval(value: Mapping[str, Any], name: str) -> str:
    if value[name] is None:
        return ABSENT
    low, high = value["interval"]
    return with_interval(value[name], (low, high))
