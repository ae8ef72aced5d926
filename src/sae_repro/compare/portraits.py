"""Figures of latents: correlation maps among them, coverage of concepts by them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.figures import drawn

MAPS = 6  # cells side by side
BINS = 8  # of concept frequency, equal numbers of concepts in each


def write_portraits(folder: Path, results: Sequence[Result]) -> None:
    """correlation_maps and coverage of the sparsest cell of each architecture, where measured."""
    chosen = sparsest(results)
    maps = [r for r in chosen if (r.saes[0].evaluated / "correlation_map.parquet").is_file()]
    if maps:
        correlation_maps(folder, maps[:MAPS])
    covered = [r for r in chosen if (r.saes[0].evaluated / "concepts.parquet").is_file()]
    if covered:
        coverage(folder, covered)


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
            ax.set_title(f"{r.name}\n{len(frame)} most active latents", fontsize=7)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(False)
        figure.colorbar(image, ax=axes[: len(results)], label="correlation", shrink=0.6)


def coverage(folder: Path, results: Sequence[Result]) -> None:
    """The fraction of concepts with a latent of φ ≥ .5, over how frequent the concepts are."""
    with drawn(folder, "coverage", 6.4, 4.0) as figure:
        ax = figure.subplots()
        for number, r in enumerate(results):
            frequency, covered = covered_by_frequency(r)
            style = "--" if r.negative else "-"
            ax.plot(frequency, covered, style, marker="os^vD*"[number % 6], ms=4, lw=1,
                    label=r.name)  # fmt: skip
        ax.set_xscale("log")
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel(f"fraction of tokens that carry the concept ({BINS} bins of equal size)")
        ax.set_ylabel("fraction of concepts covered (φ ≥ .5)")
        ax.legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1, 0.5))


def covered_by_frequency(result: Result) -> tuple[list[float], list[float]]:
    """(geometric mean frequency, fraction covered) of each bin of concepts, over a cell's SAEs."""
    frame = pd.concat([pd.read_parquet(s.evaluated / "concepts.parquet") for s in result.saes])
    frame = frame.sort_values("frequency", kind="stable")
    parts = [p for p in np.array_split(np.arange(len(frame)), min(BINS, len(frame))) if len(p)]
    log = np.log(frame["frequency"].to_numpy(np.float64))
    covered = frame["covered"].to_numpy(bool)
    return [float(np.exp(log[p].mean())) for p in parts], [float(covered[p].mean()) for p in parts]
