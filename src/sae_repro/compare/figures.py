"""Figures: PNG to look at, SVG to print; the same bytes from the same numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sae_repro.compare.collect import Result
from sae_repro.compare.grid import grid_of
from sae_repro.compare.tables import measured_on

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "sae-repro",  # ids in the SVG must not vary
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
PNG = {"Software": None}
SVG = {"Date": None, "Creator": None}


@contextmanager
def drawn(folder: Path, name: str, width: float, height: float) -> Iterator[Figure]:
    """A figure without pyplot's global state, written to `name`.png and `name`.svg."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure
        figure.savefig(folder / f"{name}.png", dpi=150, metadata=PNG)
        figure.set_layout_engine("none")  # it is laid out: to do so again takes as long as to draw
        figure.savefig(folder / f"{name}.svg", metadata=SVG)


def _colours(names: Sequence[str]) -> dict[str, Any]:
    unique = list(dict.fromkeys(names))
    return dict(zip(unique, sns.color_palette("colorblind", len(unique)), strict=True))


def write_figures(folder: Path, results: Sequence[Result]) -> None:
    """All figures of the finished cells; none without one."""
    finished = [r for r in results if r.ok]
    if not finished:
        return
    trained = [r for r in finished if not r.negative]
    if trained:
        frontier(folder, trained)
    if grid_of(finished):
        dead_fraction(folder, finished)
    density(folder, finished)
    training_curves(folder, trained)


def frontier(folder: Path, results: Sequence[Result]) -> None:
    """Held-out FVU over L0: down and to the left is better."""
    hooks = list(dict.fromkeys(r.hook for r in results))
    colours = _colours([r.architecture for r in results])
    sizes = {x: 20 + 22 * i for i, x in enumerate(sorted({r.expansion for r in results}))}
    with drawn(folder, "frontier", 4.4 * len(hooks) + 2.2, 4.2) as figure:
        axes = figure.subplots(1, len(hooks), squeeze=False)[0]
        for ax, hook in zip(axes, hooks, strict=True):
            of_hook = [r for r in results if r.hook == hook]
            for architecture in dict.fromkeys(r.architecture for r in of_hook):
                for x in sorted({r.expansion for r in of_hook if r.architecture == architecture}):
                    line = sorted(
                        (r.metrics["l0"], r.metrics["fvu"])
                        for r in of_hook
                        if r.architecture == architecture and r.expansion == x
                    )
                    l0, fvu = zip(*line, strict=True)
                    ax.plot(l0, fvu, color=colours[architecture], lw=0.8, alpha=0.6)
                    ax.scatter(
                        l0, fvu, s=sizes[x], color=colours[architecture], edgecolor="white", lw=0.5
                    )
            ax.set(
                xscale="log",
                yscale="log",
                xlabel="L0: latents active per token",
                ylabel="FVU: fraction of variance unexplained",
                title=hook,
            )
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
                axis.set_minor_formatter(mpl.ticker.NullFormatter())
        marks = [
            mpl.lines.Line2D([], [], marker="o", ls="", color=colour, label=architecture)
            for architecture, colour in colours.items()
        ] + [
            mpl.lines.Line2D([], [], marker="o", ls="", color="0.5", ms=s**0.5, label=f"{x:g}x")
            for x, s in sizes.items()
        ]
        figure.legend(handles=marks, loc="outside right center")
        figure.suptitle(f"Sparsity against reconstruction, {measured_on(results)}", fontsize=10)


def dead_fraction(folder: Path, results: Sequence[Result]) -> None:
    """Dead latents over expansion, by λ and resampling, with Wilson intervals."""
    grid = grid_of(results)
    lambdas = sorted({key[1] for key in grid}, reverse=True)
    colours = _colours([f"{lam:g}" for lam in lambdas])
    panels = {
        "dead_fraction_below": "never above the threshold",
        "dead_fraction_never": "never fires",
    }
    with drawn(folder, "dead_fraction", 8.2, 3.6) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for ax, (metric, meaning) in zip(axes, panels.items(), strict=True):
            for i, lam in enumerate(lambdas):
                for resampling in (False, True):
                    points = sorted((x, r) for (s, m, x), r in grid.items()
                                    if (s, m) == (resampling, lam))  # fmt: skip
                    if not points:
                        continue
                    x = np.array([p[0] for p in points])
                    y = 100 * np.array([p[1].metrics[metric] for p in points], dtype=float)
                    bounds = 100 * np.array([p[1].measured["intervals"][metric] for p in points])
                    # a little apart, so that equal points don't hide each other
                    shift = 1 + 0.05 * (2 * i + resampling - len(lambdas) + 0.5)
                    error = np.clip(np.abs(bounds.T - y), 0, None)
                    ax.errorbar(
                        x * shift, y, yerr=error, color=colours[f"{lam:g}"], capsize=2, lw=1,
                        marker="s" if resampling else "o", ms=4,
                        ls="--" if resampling else "-",
                        label=f"λ = {lam:g}{', resampling' if resampling else ''}",
                    )  # fmt: skip
            ax.set(xscale="log", xlabel="expansion K / D", title=f"dead: {meaning}")
            ticks = sorted({key[2] for key in grid})
            ax.set_xticks(ticks, [f"{x:g}x" for x in ticks])
            ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes[0].set(ylabel="dead latents, % of K")
        axes[0].set_ylim(bottom=0)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center")
        figure.suptitle(
            f"Dead latents of the vanilla grid (95 % Wilson), {measured_on(results)}", fontsize=10
        )


def density(folder: Path, results: Sequence[Result]) -> None:
    """Histograms of firing densities, one per cell (all its seeds); never-firing ones counted."""
    columns = min(4, len(results))
    rows = -(-len(results) // columns)
    colours = _colours([r.architecture for r in results])
    edges = np.linspace(-6, 0, 37)
    with drawn(folder, "density", 2.4 * columns, 1.5 * rows + 0.6) as figure:
        axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for ax in axes[len(results) :]:
            ax.set_visible(False)
        for ax, r in zip(axes, results, strict=False):
            latents = pd.concat([sae.latents for sae in r.saes])
            logs = latents["log10_density"].dropna().to_numpy()
            ax.hist(np.clip(logs, -6, 0), bins=edges, color=colours[r.architecture])
            ax.set_title(f"{r.name}\n{len(latents) - len(logs)} of {len(latents)} never fire",
                         fontsize=6.5)  # fmt: skip
            ax.tick_params(labelsize=6.5)
        figure.supxlabel("log10 of the fraction of tokens on which a latent fires", fontsize=9)
        figure.supylabel("latents", fontsize=9)
        figure.suptitle(f"Firing densities, {measured_on(results)}", fontsize=10)


def training_curves(folder: Path, results: Sequence[Result]) -> None:
    """FVU, L0 and dead latents over the steps, one row of panels per architecture trained here."""
    results = [r for r in results if r.cell.import_ is None]
    if not results:
        return
    architectures = list(dict.fromkeys(r.architecture for r in results))
    panels = {
        "fvu": "FVU of the batch", "l0": "L0 of the batch", "dead": "silent for 100,000 tokens",
    }  # fmt: skip
    with drawn(folder, "training_curves", 9.0, 2.0 * len(architectures) + 0.6) as figure:
        axes = figure.subplots(len(architectures), len(panels), squeeze=False, sharex=True)
        for row, architecture in zip(axes, architectures, strict=True):
            cells = [r for r in results if r.architecture == architecture]
            colours = sns.color_palette("viridis", len(cells))
            for ax, (column, title) in zip(row, panels.items(), strict=True):
                for colour, r in zip(colours, cells, strict=True):
                    curves = [sae.curve for sae in r.saes if column in sae.curve]
                    for number, curve in enumerate(curves):
                        label = f"{r.expansion:g}x, {r.sparsity}" if not number else None
                        ax.plot(curve["step"], curve[column], color=colour, lw=0.9, label=label)
                ax.set_title(f"{architecture}: {title}", fontsize=8)
                if column != "dead":
                    ax.set_yscale("log")
                ax.tick_params(labelsize=7)
            row[-1].legend(fontsize=6, loc="center left", bbox_to_anchor=(1.02, 0.5))
        for ax in axes[-1]:
            ax.set_xlabel("step")
        figure.suptitle("Training curves (training batches)", fontsize=10)
