"""Figures of two tables over activations: dead latents by threshold, κ by quantile."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import drawn, logarithmic
from sae_repro.compare.figures import next_to
from sae_repro.compare.tables import unit_of
from sae_repro.params.appearance import looks


def write_activation_figures(
    folder: Path, tables: Path, results: Sequence[Result], targets: Sequence[float]
) -> None:
    """dead_curve and monosemantic_by_quantile, as far as `tables` has their CSV files.

    A line per architecture: its cell next to the middle target. No figure of dead latents where
    none of these is ever dead.
    """
    chosen = next_to([r for r in results if r.ok], targets)
    if (path := tables / "dead_curve.csv").is_file():
        frame = pd.read_csv(path).set_index("cell")
        dead = frame[[name for name in map(str, frame) if name not in ("latents", "never")]]
        shown = [r for r in chosen if r.name in dead.index and dead.loc[r.name].max() > 0]
        if shown:
            _lines(
                folder, "dead_curve", shown, dead, [float(str(name)) for name in dead],
                "threshold on a latent's largest activation",
                "latents below the threshold (fraction of K) ↓",
            )  # fmt: skip
    if (path := tables / "monosemantic_by_quantile.csv").is_file():
        frame = pd.read_csv(path)
        scored = frame[frame["group"] == "scored"].set_index("cell")
        kappa = scored[[name for name in map(str, scored) if name.startswith("kappa_")]]
        shown = [r for r in chosen if r.name in kappa.index]
        if shown:
            _lines(
                folder, "monosemantic_by_quantile", shown, kappa,
                [float(str(name).removeprefix("kappa_")) for name in kappa],
                "quantile of a latent's activations, the weakest first",
                f"{unit_of(shown[0])} with the latent's concept\n(κ: chance-corrected fraction) ↑",
            )  # fmt: skip


def _lines(
    folder: Path,
    name: str,
    results: Sequence[Result],
    values: pd.DataFrame,
    x: Sequence[float],
    xlabel: str,
    ylabel: str,
) -> None:
    looks_of = looks(r.architecture for r in results)
    with drawn(folder, name, 7.6, 3.8) as figure:
        ax = figure.subplots()
        for r in results:
            look = looks_of[r.architecture]
            ax.plot(x, values.loc[r.name].to_numpy(float), color=look.colour, marker=look.marker,
                    ms=4, lw=1, ls=look.line, label=f"{look.label} ({r.name})")  # fmt: skip
        if max(x) / min(x) > 100:  # thresholds, over decades
            ax.set_xscale("log")
            logarithmic(ax.xaxis)
            decades = [10.0**e for e in range(-6, 7)]
            ax.set_xticks([ten for ten in decades if min(x) <= ten <= max(x)])
        else:
            ax.set_xticks(x)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        figure.legend(fontsize=7, loc="outside right center")
