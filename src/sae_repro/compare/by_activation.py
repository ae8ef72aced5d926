"""Two tables over activations: what weak ones mean, and dead latents by the threshold.

monosemantic_by_quantile: κ of each quantile of a latent's activations, whose mean by activation
mass is M. dead_curve: the fraction of latents whose largest activation stays below a threshold.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import measured_on, number, unit_of, with_interval, write_table
from sae_repro.numerics.bootstrap import LEAST_UNITS, mean_interval
from sae_repro.numerics.intervals import Interval, student
from sae_repro.numerics.seeds import LEAST_SEEDS

SCORED = "scored", ("monosemantic-complete", "monosemantic-narrow", "polysemantic")
MONOSEMANTIC = "monosemantic", SCORED[1][:2]
THRESHOLDS = (0.001, 0.003, 0.01, 0.03, 0.07, 0.1, 0.3, 1.0, 3.0, 10.0)
"""The published grid's is .07."""


def write_by_quantile(folder: Path, results: Sequence[Result], seed: int) -> None:
    """monosemantic_by_quantile, as far as it was measured."""
    rows = [
        row
        for r in results
        if r.metrics.get("monosemantic_fraction") is not None
        for group, classes in (SCORED, MONOSEMANTIC)
        if (row := _by_quantile(r, group, classes, seed)) is not None
    ]
    if not rows:
        return
    frame = pd.DataFrame(rows)
    kappas = _kappas(frame)
    printed = pd.DataFrame(
        {
            "cell": frame["cell"],
            "latents": frame["group"],
            "number": frame["latents"],
            **{
                f"quantile {name.removeprefix('kappa_')}": [number(float(v)) for v in frame[name]]
                for name in kappas
            },
            "highest − lowest": [
                with_interval(difference, (low, high))
                for difference, low, high in zip(
                    frame["difference"], frame["low"], frame["high"], strict=True
                )
            ],
        }
    )
    unit = unit_of(results[0])
    caption = (
        "# Monosemanticity by activation\n\nMean κ over latents of each fifth of their "
        f"activations, the weakest first: the fraction of its {unit} that carry the latent's "
        "concept, corrected for chance (1: all of them; 0: no more than anywhere). On "
        f"{measured_on(results)}. Scored: neither dead, rare nor dense. Number: latents with "
        f"{unit} in the first and the last fifth, of all SAEs of the cell. Brackets: 95 % interval "
        "of the difference, over seeds where there are several, else over latents."
    )
    write_table(folder, "monosemantic_by_quantile", frame, caption, printed)


def _kappas(frame: pd.DataFrame) -> list[str]:
    return [name for name in map(str, frame) if name.startswith("kappa_")]


def _by_quantile(
    r: Result, group: str, classes: Sequence[str], seed: int
) -> Mapping[str, str | int | float] | None:
    """The row of one cell; None where no latent of `classes` has a first and a last quantile."""
    found = []
    for sae in r.saes:
        frame = sae.monosemantic
        kappas = _kappas(frame)
        of_class = frame.loc[frame["class"].isin(classes), kappas]
        of_class = of_class[of_class[[kappas[0], kappas[-1]]].notna().all(axis=1)]
        if len(of_class):
            found.append(of_class)
    if not found:
        return None
    differences = [(of.iloc[:, -1] - of.iloc[:, 0]).to_numpy(np.float64) for of in found]
    by_seed = [float(of.mean()) for of in differences]
    low, high = _interval(by_seed, differences[0], seed, group)
    means = pd.DataFrame([of.mean() for of in found]).mean()
    return {
        "cell": r.name,
        "group": group,
        "latents": sum(len(of) for of in found),
        **{str(name): float(mean) for name, mean in means.items()},
        "difference": float(np.mean(by_seed)),
        "low": low,
        "high": high,
    }


def _interval(
    by_seed: Sequence[float], first: "np.ndarray[tuple[int], np.dtype[np.float64]]", seed: int,
    group: str,
) -> Interval:  # fmt: skip
    if len(by_seed) >= LEAST_SEEDS:
        return student(by_seed)[1:]
    if len(first) < LEAST_UNITS:
        return (np.nan, np.nan)
    return mean_interval(first, seed, "by quantile", group)


def write_dead_curve(folder: Path, results: Sequence[Result]) -> None:
    """dead_curve: a row per cell, a column per threshold; means over the SAEs of a cell."""
    rows = []
    for r in results:
        largest = [sae.latents["max_activation"].to_numpy(np.float64) for sae in r.saes]
        if largest:
            of = {f"{t:g}": float(np.mean([(k < t).mean() for k in largest])) for t in THRESHOLDS}
            never = float(np.mean([(k <= 0).mean() for k in largest]))
            rows.append({"cell": r.name, "latents": len(largest[0]), "never": never, **of})
    if not rows:
        return
    frame = pd.DataFrame(rows)
    values = frame.drop(columns=["cell", "latents"]).map(lambda value: number(float(value)))
    caption = (
        "# Dead latents by threshold\n\nFraction of latents whose largest activation on "
        f"{measured_on(results)} stays below the threshold; never: that fire on no "
        f"{unit_of(results[0]).removesuffix('s')}. The published grid's threshold is 0.07."
    )
    printed = pd.concat([frame[["cell", "latents"]], values], axis=1)
    write_table(folder, "dead_curve", frame, caption, printed)
