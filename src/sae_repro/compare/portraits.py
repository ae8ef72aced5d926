"""Figures of latents: correlation maps among them, coverage of concepts by them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import drawn, logarithmic
from sae_repro.compare.tables import unit_of
from sae_repro.numerics.intervals import Interval, wilson
from sae_repro.params.appearance import looks

MAPS = 6  # cells side by side
BINS = 8  # of concept frequency, equal numbers of concepts in each


def write_portraits(folder: Path, results: Sequence[Result]) -> None:
    """correlation_maps and coverage of the sparsest cell of each architecture, where measured."""
    chosen = sparsest(results)
    maps = [r for r in chosen if _has_rows(r, "correlation_map")]
    if maps:
        correlation_maps(folder, maps[:MAPS])
    covered = [r for r in chosen if _has_rows(r, "concepts")]
    if covered:
        coverage(folder, covered)


def _has_rows(result: Result, table: str) -> bool:
    """Whether the cell has the table, and in it a latent that fires, or a concept that occurs."""
    path = result.saes[0].evaluated / f"{table}.parquet"
    return path.is_file() and not pd.read_parquet(path).empty


def sparsest(results: Sequence[Result]) -> list[Result]:
    """Each architecture's cell with the smallest L0 on the first hook, in params.yaml's order."""
    finished = [r for r in results if r.ok]
    trained = [r for r in finished if not r.negative]
    hook = next((r.hook for r in trained), None)
    best: dict[str, Result] = {}
    for r in finished:
        if r.hook != hook and not r.negative:
            continue
        sparser = best.get(r.architecture)
        if sparser is None or (r.metrics["l0"] or 0) < (sparser.metrics["l0"] or 0):
            best[r.architecture] = r
    return list(best.values())


def correlation_maps(folder: Path, results: Sequence[Result]) -> None:
    """Correlation of the activations of each cell's most active latents, in clustered order."""
    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    several = len({r.hook for r in results}) > 1
    with drawn(folder, "correlation_maps", 2.9 * columns + 0.6, 2.9 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(results) :]:
            ax.set_visible(False)
        for ax, r in zip(axes, results, strict=False):
            frame = pd.read_parquet(r.saes[0].evaluated / "correlation_map.parquet")
            image = ax.imshow(
                frame.drop(columns="latent").to_numpy(np.float64), vmin=-1, vmax=1, cmap="RdBu_r",
                interpolation="nearest", rasterized=True,
            )  # fmt: skip
            hook = f"\n{r.hook}" if several else ""
            ax.set_title(f"{r.name}{hook}\n{len(frame)} most active latents", fontsize=7)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(False)
        figure.colorbar(
            image, ax=axes[: len(results)], label="correlation of activations", shrink=0.6
        )


def coverage(folder: Path, results: Sequence[Result]) -> None:
    """The fraction of concepts with a latent of φ ≥ .5, over how frequent the concepts are.

    A few dozen concepts are in a bin: one bar has the length of the median Wilson interval of all
    points, which bars at every point would hide. Negative controls are a band from the lowest to
    the highest of them.
    """
    looks_of = looks(r.architecture for r in results)
    points = [(r, *covered_by_frequency(r)) for r in results]
    trained = [p for p in points if not p[0].negative]
    bins = max(len(p[1]) for p in points)
    controls = [p for p in points if p[0].negative and len(p[1]) == bins]
    bounds = np.array([b for *_, of in points for b in of], dtype=np.float64)
    half = float(np.median(bounds[:, 1] - bounds[:, 0])) / 2
    with drawn(folder, "coverage", 7.6, 4.2) as figure:
        ax = figure.subplots()
        if controls:
            x = np.mean([frequency for _, frequency, _, _ in controls], axis=0)
            of = np.array([covered for _, _, covered, _ in controls])
            ax.fill_between(x, of.min(axis=0), of.max(axis=0), color="0.85", lw=0,
                            label=f"{len(controls)} negative controls")  # fmt: skip
        for r, frequency, covered, _ in trained:
            look = looks_of[r.architecture]
            ax.plot(frequency, covered, color=look.colour, marker=look.marker, ms=4.5, lw=1,
                    label=look.label)  # fmt: skip
        ax.set_xscale("log")
        logarithmic(ax.xaxis)
        ax.set_ylim(-0.03, 1.03)
        left = ax.get_xlim()[0] * 1.06
        ax.errorbar([left], [0.5], yerr=half, color="0.3", capsize=2, lw=1)
        ax.annotate("typical\n95 %", (left, 0.5 + half), fontsize=6.5, color="0.3", ha="center",
                    va="bottom", xytext=(0, 2), textcoords="offset points")  # fmt: skip
        of_what = f"fraction of {unit_of(results[0])}; {BINS} bins of equally many"
        ax.set_xlabel(f"concept frequency ({of_what})")
        ax.set_ylabel("concepts with a latent of φ ≥ .5 (fraction) ↑")
        figure.legend(fontsize=7.5, loc="outside right center")
        figure.suptitle(
            "Coverage of concepts by each architecture's sparsest cell, "
            f"{(trained or controls)[0][0].hook}",
            fontsize=9,
        )


def covered_by_frequency(result: Result) -> tuple[list[float], list[float], list[Interval]]:
    """Of each bin of concepts, over a cell's SAEs: geometric mean frequency, fraction covered, CI.

    The interval is Wilson's over the concepts of one SAE, for the seeds share their concepts.
    """
    frame = pd.concat([pd.read_parquet(s.evaluated / "concepts.parquet") for s in result.saes])
    frame = frame.sort_values("frequency", kind="stable")
    parts = [p for p in np.array_split(np.arange(len(frame)), min(BINS, len(frame))) if len(p)]
    log = np.log(frame["frequency"].to_numpy(np.float64))
    covered = frame["covered"].to_numpy(bool)
    concepts = [max(1, len(p) // len(result.saes)) for p in parts]
    fractions = [float(covered[p].mean()) for p in parts]
    bounds: list[Interval] = [
        wilson(round(fraction * n), n) for fraction, n in zip(fractions, concepts, strict=True)
    ]
    return [float(np.exp(log[p].mean())) for p in parts], fractions, bounds
