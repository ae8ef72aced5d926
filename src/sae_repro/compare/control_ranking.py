"""Tables of worlds of spec files: which architecture recovers the most, what predicts it."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import number, with_interval, write_table
from sae_repro.files import write_text
from sae_repro.metrics import CONTROLS, METRICS, find, mean_over_seeds
from sae_repro.metrics.world_truth import WORLDS
from sae_repro.numerics.intervals import student
from sae_repro.numerics.random import generator
from sae_repro.numerics.ranks import ranks, spearman

TRUTH = "mcc"
SHOWN = ("mcc", "latent_f1", "hole_rate", "hedging", "composed_fraction", "l0_ratio", "fvu")
RESAMPLED = 1000
LEAST_CELLS = 5
FROZEN = "frozen-"
"""How the recipes begin of which a part stays as it was drawn."""
GROUP = ["world", "width", "l0_multiple"]
"""What is ranked together: SAEs of one width at one L0 in one world."""


def write_ranking(folder: Path, trials: pd.DataFrame, results: Sequence[Result], seed: int) -> None:
    """control_ranking.csv and .md, control_predictors.csv; nothing without a world of a spec file.

    `trials`: trials.csv of the stage `control`; `results`: the study's own cells.
    """
    if "method" not in trials:
        return
    trials = trials[trials["method"].notna()]
    table = ranking(trials)
    printed = pd.DataFrame(
        {
            "world": table["world"],
            "recipe": table["recipe"],
            "rank": [_shown(row, "rank") for row in table.to_dict("records")],
            **{m: [_shown(row, m) for row in table.to_dict("records")] for m in SHOWN},
        }
    )
    predictors = predictions(trials, results, seed)
    lines = "\n".join(f"- {line}" for line in [*overall(trials), *signs(trials)])
    definitions = "\n".join(
        f"- {m.name}: {m.definition}"
        for m in [*WORLDS, *CONTROLS] if m.name in SHOWN or m.name == "decoder_projection"
    )  # fmt: skip
    caption = (
        "# Worlds of spec files: architectures ranked by the truth\n\nMean over seeds [95 % "
        "interval: Student's t, of fractions on their angles]; each seed draws atoms, data and "
        f"weights of its own. rank: by {TRUTH}, 1 the best, among the SAEs of one world, width and "
        "L0 that trained; its interval is over seeds, cut at the first and the last "
        f"place.\n\n{lines}\n\n{definitions}\n\n"
        f"{_predictors_section(predictors)}\n\n## All trials"
    )
    write_table(folder, "control_ranking", table, caption, printed)
    text = predictors.to_csv(index=False, lineterminator="\n")
    write_text(folder / "control_predictors.csv", text)


def ranking(trials: pd.DataFrame) -> pd.DataFrame:
    """A row per world and recipe: seeds, failures, rank and metrics with intervals over seeds."""
    ranked = with_ranks(trials)
    rows = []
    for (world, recipe), group in ranked.groupby(["world", "recipe"], sort=False):
        ok = group[group["status"] == "ok"]
        first = group.iloc[0]
        row: dict[str, Any] = {
            "world": world,
            "recipe": recipe,
            **{key: first[key] for key in ("method", "width", "l0_multiple", "target_l0")},
            "seeds": len(group),
            "failed": len(group) - len(ok),
        }
        mean, low, high = student(ok["rank"].dropna().tolist())
        places = ok["places"].max()
        row |= {"rank": mean, "rank_low": np.maximum(low, 1), "rank_high": np.minimum(high, places)}
        for metric in [*WORLDS, *CONTROLS]:
            if metric.name not in ok or not ok[metric.name].notna().any():
                continue
            mean, low, high = mean_over_seeds(metric, ok[metric.name].dropna().tolist())
            row |= {metric.name: mean, f"{metric.name}_low": low, f"{metric.name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def with_ranks(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with their rank by `TRUTH` within world, width, L0 and seed; 1 is the best.

    `places` is how many trained there, the last rank.
    """
    ok = trials[trials["status"] == "ok"]
    by_seed = ok.groupby([*GROUP, "seed"], sort=False)[TRUTH]
    return trials.assign(rank=by_seed.rank(ascending=False), places=by_seed.transform("size"))


def complete(trials: pd.DataFrame) -> pd.DataFrame:
    """The ranked trials of those groups that hold every method: only their ranks are comparable."""
    ranked = with_ranks(trials)
    full = ranked.groupby(GROUP)["method"].transform("nunique") == ranked["method"].nunique()
    return ranked[full & (ranked["status"] == "ok")]


def overall(trials: pd.DataFrame) -> Iterator[str]:
    """The mean place of each method over the groups that hold all of them, in order."""
    ranked = complete(trials)
    methods = ranked["method"].nunique()
    if methods < 2:
        return
    places = [
        (student(group.groupby("seed")["rank"].mean().tolist()), method)
        for method, group in ranked.groupby("method", sort=False)
    ]
    listing = ", ".join(
        f"{method} {with_interval(mean, (max(low, 1), min(high, methods)))}"
        for (mean, low, high), method in sorted(places, key=lambda place: place[0][0])
    )
    worlds = ", ".join(dict.fromkeys(ranked["world"]))
    yield f"Mean rank by {TRUTH} of {methods} methods ({worlds}): {listing}."


def signs(trials: pd.DataFrame) -> Iterator[str]:
    """What two papers say of L0 and width, tested by differences paired over seeds."""
    for (world, method), group in trials[trials["status"] == "ok"].groupby(
        ["world", "method"], sort=False
    ):
        if group["l0_multiple"].nunique() > 2 and group["width"].nunique() == 1:
            yield from _l0_signs(str(world), str(method), group)
        if group["width"].nunique() > 1 and group["l0_multiple"].nunique() == 1:
            narrow, wide = group["width"].min(), group["width"].max()
            yield (
                f"{world}, {method}: a narrow SAE hedges more than a wide one (arXiv:2505.11756): "
                + _difference(group, "width", "hedging", narrow, wide)
            )


def _l0_signs(world: str, method: str, group: pd.DataFrame) -> Iterator[str]:
    multiples = np.sort(group["l0_multiple"].unique())
    right = multiples[np.abs(np.log(multiples)).argmin()]
    low, high = multiples[0], multiples[-1]
    if low < right:
        yield (
            f"{world}, {method}: an L0 below the world's own mixes atoms, so that MCC is higher at "
            "the right one (arXiv:2508.16560): "
            + _difference(group, "l0_multiple", TRUTH, right, low)
        )
    if high > right:
        yield (
            f"{world}, {method}: so does one above it: "
            + _difference(group, "l0_multiple", TRUTH, right, high)
        )
    by_l0 = group.groupby("l0_multiple")
    chosen = by_l0["decoder_projection"].mean().idxmin()
    tried = ", ".join(f"{m:g}" for m in multiples)
    yield (
        f"{world}, {method}: the decoder projection is smallest at {chosen:g} × the world's L0, "
        f"MCC largest at {by_l0[TRUTH].mean().idxmax():g} ×, of {tried}."
    )


def _difference(group: pd.DataFrame, key: str, metric: str, a: float, b: float) -> str:
    """The verdict on metric(a) > metric(b), with the difference paired over seeds."""
    wide = group.pivot_table(index="seed", columns=key, values=metric)
    values = (wide[a] - wide[b]).dropna().tolist()
    mean, low, high = student(values)
    verdict = "observed" if low > 0 else "reversed" if high < 0 else "not distinguishable"
    return (
        f"**{verdict}** ({metric} at {a:g} minus at {b:g}: {with_interval(mean, (low, high))}, "
        f"{len(values)} seeds)."
    )


def predictions(trials: pd.DataFrame, results: Sequence[Result], seed: int) -> pd.DataFrame:
    """A row per metric: its rank correlation with the truth, in the worlds and in the study.

    `in_worlds`: over cells (world and recipe, means over seeds), both ranked within world, width
    and L0, which does not count how hard worlds are; `trained`: without the frozen baselines, which
    any metric should tell. `in_study`: over architectures, between the mean of the metric over the
    study's own cells and the mean rank in the worlds where all methods were tried. Intervals:
    bootstrap over cells, or architectures. Signed so that > 0 is a metric whose better means truer.
    """
    rows = []
    cells, truth = _cells(trials), _architectures(trials)
    trained = cells[~cells["method"].str.startswith(FROZEN)]
    for metric in METRICS:
        if metric.better == "none":
            continue
        sign = 1 if metric.better == "higher" else -1
        for name in _names(metric.name, cells, results):
            row: dict[str, Any] = {"metric": name}
            for column, among in (("in_worlds", cells), ("trained", trained)):
                within = _within(among, name) if name in among else np.empty((0, 2))
                row |= _correlation(within, sign, seed, column, name)
            real = _real(results, name)
            both = [(real[a], -truth[a]) for a in truth if a in real]
            row |= _correlation(np.array(both).reshape(-1, 2), sign, seed, "in_study", name)
            if row["in_worlds_n"] or row["in_study_n"]:
                rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.sort_values("trained", ascending=False, kind="stable") if rows else frame


def _names(name: str, cells: pd.DataFrame, results: Sequence[Result]) -> list[str]:
    """Columns and metrics of a row of the registry, which may be a family."""
    found = [*cells.columns, *(m for r in results if r.ok for m in r.metrics)]
    return [
        other for other in dict.fromkeys(found)
        if (row := find(other)) is not None and row.name == name
    ]  # fmt: skip


def _cells(trials: pd.DataFrame) -> pd.DataFrame:
    ok = trials[trials["status"] == "ok"]
    by = [*GROUP, "recipe", "method"]
    return ok.groupby(by, sort=False).mean(numeric_only=True).reset_index()


def _within(cells: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    """[cells, 2]: ranks of the metric and the truth within a group, from −1 to 1."""
    parts = []
    for _, group in cells[[*GROUP, name, TRUTH]].dropna().groupby(GROUP, sort=False):
        if len(group) > 2:
            both = np.stack([ranks(group[c].to_numpy(float)) for c in (name, TRUTH)], axis=1)
            parts.append((2 * both - len(group) - 1) / (len(group) - 1))
    return np.concatenate(parts) if parts else np.empty((0, 2))


def _architectures(trials: pd.DataFrame) -> dict[str, float]:
    """Mean rank by architecture in the worlds where all methods were tried at the world's own L0.

    Rank 2 of 2 is worse than rank 2 of 13: what was tried elsewhere with others has no place here.
    """
    ranked = complete(trials)
    ranked = ranked[ranked["l0_multiple"] == 1]
    means = ranked.groupby("architecture")["rank"].mean()
    return {str(name): float(value) for name, value in means.items()}


def _real(results: Sequence[Result], name: str) -> dict[str, float]:
    """Mean of a metric over the study's own cells, by architecture."""
    found: dict[str, list[float]] = {}
    for r in results:
        if r.ok and (value := r.metrics.get(name)) is not None:
            found.setdefault(r.architecture, []).append(value)
    return {architecture: float(np.mean(values)) for architecture, values in found.items()}


def _correlation(
    pairs: npt.NDArray[np.float64], sign: int, seed: int, column: str, name: str
) -> dict[str, Any]:
    """Spearman's ρ of [n, 2], its bootstrap interval, and n; none of fewer than `LEAST_CELLS`."""
    n = len(pairs)
    none = {column: math.nan, f"{column}_low": math.nan, f"{column}_high": math.nan}
    if n < LEAST_CELLS:
        return {**none, f"{column}_n": 0}
    rng = generator(seed, "compare", "control ranking", column, name)
    draws = rng.integers(n, size=(RESAMPLED, n))
    values = [sign * spearman(pairs[draw, 0], pairs[draw, 1]) for draw in draws]
    known = [v for v in values if not math.isnan(v)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (math.nan, math.nan)
    rho = sign * spearman(pairs[:, 0], pairs[:, 1])
    return {column: rho, f"{column}_low": low, f"{column}_high": high, f"{column}_n": n}


def _predictors_section(frame: pd.DataFrame) -> str:
    head = (
        "## Which metric predicts the rank\n\nSpearman's ρ with the rank by "
        f"{TRUTH} [95 % bootstrap interval], signed so that above 0 better means truer. In the "
        "worlds: over cells, ranked within world, width and L0; trained: without the frozen "
        "baselines. In the study: over architectures, between the study's own cells and the worlds "
        "where all methods were tried. Intervals resample cells or architectures as if they were "
        "independent. Metrics are all tried here and none is corrected for that."
    )
    if not len(frame):
        return head + f"\n\nFewer than {LEAST_CELLS} cells: nothing is said."
    shown = pd.DataFrame(
        {
            "metric": frame["metric"],
            **{
                title: [_shown(row, column) for row in frame.to_dict("records")]
                for title, column in (
                    ("in the worlds", "in_worlds"),
                    ("trained", "trained"),
                    ("in the study", "in_study"),
                )
            },
            "cells": frame["in_worlds_n"],
            "trained cells": frame["trained_n"],
            "architectures": frame["in_study_n"],
        }
    )
    return f"{head}\n\n{shown.to_markdown(index=False, disable_numparse=True)}"


def _shown(row: dict[Any, Any], name: str) -> str:
    value = row.get(name, math.nan)
    if value is None or math.isnan(value):
        return number(None)
    return with_interval(value, (row[f"{name}_low"], row[f"{name}_high"]))
