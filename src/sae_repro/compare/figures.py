"""Figures of the cells: frontier, dead latents, firing densities."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sae_repro.compare.collect import Result
from sae_repro.compare.drawing import Floats, apart, broken, drawn, logarithmic
from sae_repro.compare.frontier import Frontier, frontiers, on_lines
from sae_repro.compare.grid import grid_of
from sae_repro.compare.tables import measured_on, unit_in, unit_of
from sae_repro.metrics.labels import heading
from sae_repro.numerics.seeds import LEAST_SEEDS
from sae_repro.params.appearance import Look, looks

LEAST_ON_A_HOOK = 2
"""Cells for panels of a frontier: one alone is a row of the table."""
DEAD = {
    "dead_fraction_below": "never above the threshold",
    "dead_fraction_never": "never fires",
}
FRONTIER = {"fvu": "FVU, fraction of variance unexplained ↓", "kl": "KL divergence (nats) ↓"}
NUMBERED = 12
"""Rows or columns of a heat map whose cells have room for their numbers."""
DENSITY_BINS = np.linspace(-6, 0, 37)
COLUMNS = 4
IN_ONE_BIN = 0.9
"""Of the latents: so many in one bin show nothing, and squeeze the other panels."""
End = tuple[float, float, str, str]
"""Of a line: L0, value, name, colour."""


def write_figures(folder: Path, results: Sequence[Result], targets: Sequence[float] = ()) -> None:
    """Frontier, dead latents and densities of the finished cells; none without one.

    `targets`: L0 that tables compare at.
    """
    finished = [r for r in results if r.ok]
    if not finished:
        return
    looks_of = looks(r.architecture for r in results)
    trained = [r for r in finished if not r.negative]
    if on_lines(trained):
        frontier(folder, trained, targets, looks_of)
    if grid_of(finished):
        dead_fraction(folder, finished)
    density(folder, finished, looks_of, targets)


def frontier(
    folder: Path, results: Sequence[Result], targets: Sequence[float], looks_of: Mapping[str, Look]
) -> None:
    """Held-out FVU and KL over L0: down and to the left is better.

    Lines of FVU are those that the table of matched L0 reads. Of several seeds: bands, the 95 %
    intervals of the cells; what has one seed is thin and hollow. Beside lines of several seeds at
    one width, what has one seed, another width or length of training is a grey point.
    """
    per_hook: dict[str, list[Result]] = {}
    for r in on_lines(results):
        per_hook.setdefault(r.hook, []).append(r)
    alone = [r for of in per_hook.values() if len(of) < LEAST_ON_A_HOOK for r in of]
    hooks = {hook: of for hook, of in per_hook.items() if len(of) >= LEAST_ON_A_HOOK} or per_hook
    panels = [(hook, metric) for hook, of in hooks.items() for metric in FRONTIER
              if any((r.metrics.get(metric) or 0) > 0 for r in of)]  # fmt: skip
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    l0, grey = heading("l0", of=unit_in(results)), False
    with drawn(folder, "frontier", 5.6 * columns, 4.4 * rows + 0.4) as figure:
        for n, (hook, metric) in enumerate(panels):
            ax = figure.add_subplot(rows, columns, n + 1)
            for target in targets:
                ax.axvline(target, color="0.8", lw=0.8, ls=":", zorder=0)
            ax.set(xscale="log", yscale="log", xlabel=l0, ylabel=FRONTIER[metric])
            logarithmic(ax.xaxis, ax.yaxis)
            main, other = _main(frontiers(hooks[hook]))
            grey |= bool(other)
            _frontiers(ax, main, metric, targets, looks_of)
            _points(ax, other, metric)
            if len(hooks) > 1:
                ax.set_title(hook, fontsize=9)
        left_out = f"; not drawn, alone on its hook: {', '.join(r.name for r in alone)}"
        dotted = "; dotted: the L0 at which tables compare" if targets else ""
        dotted += "\ngrey: one seed, other widths, other lengths of training" if grey else ""
        title = (
            f"Sparsity against fidelity, {next(iter(hooks)) if len(hooks) == 1 else 'by hook'}, "
            f"{measured_on(results)}\nbands: 95 % over seeds and documents; thin and hollow: one "
            f"seed{dotted}{left_out if alone and hooks is not per_hook else ''}"
        )
        figure.suptitle(broken(title, 5.6 * columns), fontsize=8)


def _main(lines: Sequence[Frontier]) -> tuple[list[Frontier], list[Frontier]]:
    """(lines to compare, the rest): of several seeds, at the width and length of most."""
    several = [f for f in lines if min(len(r.saes) for r in f.cells) >= LEAST_SEEDS]
    if not several:
        return list(lines), []
    widths = [f.expansion for f in several for _ in f.cells]
    width = max(sorted(set(widths)), key=widths.count)
    main = [f for f in several if f.expansion == width and f.usual]
    return (main, [f for f in lines if f not in main]) if main else (list(lines), [])


def _points(ax: Axes, lines: Sequence[Frontier], metric: str) -> None:
    """Grey points, where they lie within what is drawn already."""
    limits = ax.get_xlim(), ax.get_ylim()
    for f in lines:
        ax.plot(f.l0, f.values(metric), ls="", marker="o", ms=3, mfc="white", mec="0.6", zorder=0)
    ax.set(xlim=limits[0], ylim=limits[1])


def _frontiers(
    ax: Axes,
    lines: Sequence[Frontier],
    metric: str,
    targets: Sequence[float],
    looks_of: Mapping[str, Look],
) -> None:
    left: list[End] = []
    right: dict[str, End] = {}
    for f in lines:
        look, values = looks_of[f.architecture], f.values(metric)
        if not np.isfinite(values).all() or (values <= 0).any():
            continue
        several = min(len(r.saes) for r in f.cells) >= LEAST_SEEDS
        x, y = f.drawn(targets) if metric == "fvu" else (f.l0, values)
        ax.plot(x, y, color=look.colour, lw=1.3 if several else 0.6,
                alpha=1 if several else 0.6, zorder=3 if several else 1)  # fmt: skip
        ax.plot(f.l0, values, ls="", marker=look.marker, ms=5 if several else 3.5,
                color=look.colour, mfc=look.colour if several else "white", mew=0.8,
                zorder=4 if several else 2)  # fmt: skip
        bounds = np.array([r.interval(metric) or (np.nan, np.nan) for r in f.cells], dtype=float)
        if several and len(f.cells) > 1:
            ax.fill_between(f.l0, np.maximum(bounds[:, 0], values / 10), bounds[:, 1],
                            color=look.colour, alpha=0.18, lw=0, zorder=1)  # fmt: skip
        if several:
            left.append((f.l0[0], values[0], f.label, look.colour))
        else:
            at = (f.l0[-1], values[-1], f"{f.architecture}\n(one seed)", look.colour)
            known = right.get(f.architecture)
            right[f.architecture] = max(at, known) if known else at
    _labelled(ax, left, list(right.values()))


def _labelled(ax: Axes, left: Sequence[End], right: Sequence[End]) -> None:
    """Names at both ends of lines, in margins as wide as they need, none above another."""
    margins = [_margin(ends) for ends in (left, right)]
    first, last = np.log(ax.get_xlim())
    width = (last - first) / (1 - sum(margins))
    ax.set_xlim(*np.exp([first - margins[0] * width, last + margins[1] * width]))
    shown = [m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5)]
    ax.set_xticks([t for t in shown if np.exp(first) <= t <= np.exp(last)])
    ax.xaxis.set_minor_locator(NullLocator())
    for ends, side in ((left, "right"), (right, "left")):
        if not ends:
            continue
        low, high = np.log(ax.get_ylim())
        gap = 0.045 * max(text.count("\n") + 1 for _, _, text, _ in ends) * (high - low)
        places = apart([float(np.log(y)) for _, y, _, _ in ends], gap)
        ends_at = min(low, *(p - gap for p in places)), max(high, *(p + gap for p in places))
        ax.set_ylim(*np.exp(ends_at))
        at = np.exp(first + 0.01 * width if side == "right" else last - 0.01 * width)
        for (x, y, text, colour), place in zip(ends, places, strict=True):
            ax.annotate(
                text, (x, y), xytext=(float(at), float(np.exp(place))), textcoords="data",
                color=colour, fontsize=7.5, ha=side, va="center",
                arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5,
                            "shrinkA": 1, "shrinkB": 3},
            )  # fmt: skip


def _margin(ends: Sequence[End]) -> float:
    """Of a panel's width, what the longest name takes."""
    longest = max((len(line) for _, _, text, _ in ends for line in text.split("\n")), default=0)
    return 0.013 * longest


def dead_fraction(folder: Path, results: Sequence[Result]) -> None:
    """Dead latents of the vanilla grid as heat maps of one scale: a panel per definition, revival.

    None of a definition by which no latent is dead, and no figure where none is by any.
    """
    grid = grid_of(results)
    blocks = sorted({resampling for resampling, _, _ in grid})
    maps = {(m, b): _map(grid, m, b) for m in DEAD for b in blocks}
    shown = [m for m in DEAD if any(np.nanmax(maps[m, b]) > 0 for b in blocks)]
    if not shown:
        return
    most = max(float(np.nanmax(maps[m, b])) for m in shown for b in blocks)
    lambdas, expansions = _axes_of(grid)
    wide, tall = max(2.6, 0.62 * len(expansions)), max(1.3, 0.3 * min(len(lambdas), 24))
    size = (wide + 0.6) * len(blocks) + 1.6, (tall + 0.8) * len(shown) + 0.8
    with drawn(folder, "dead_fraction", *size) as figure:
        axes = figure.subplots(len(shown), len(blocks), squeeze=False)
        for ax, (metric, block) in zip(
            axes.ravel(), ((m, b) for m in shown for b in blocks), strict=True
        ):
            image = ax.imshow(maps[metric, block], vmin=0, vmax=most, cmap="cividis",
                              aspect="auto", interpolation="nearest")  # fmt: skip
            if max(len(lambdas), len(expansions)) <= NUMBERED:
                _numbers(ax, maps[metric, block], most)
            every = max(1, len(lambdas) // NUMBERED)
            ax.set_xticks(range(len(expansions)), [f"{x:g}×" for x in expansions])
            ax.set_yticks(range(0, len(lambdas), every), [f"{v:g}" for v in lambdas[::every]])
            revival = "resampling" if block else "no resampling"
            ax.set_title(f"{DEAD[metric]}, {revival}", fontsize=8)
            ax.grid(False)
        for ax in axes[:, 0]:
            ax.set(ylabel="λ")
        for ax in axes[-1]:
            ax.set(xlabel="expansion K / D")
        figure.colorbar(image, ax=axes, label="dead latents (fraction of K) ↓")
        none = [DEAD[m] for m in DEAD if m not in shown]
        figure.suptitle(
            f"Dead latents of the vanilla grid, {next(iter(grid.values())).hook}\n"
            f"{measured_on(results)}" + (f"; {none[0]}: 0 in every cell" if none else ""),
            fontsize=8,
        )


def _axes_of(grid: Mapping[tuple[bool, float, float], Result]) -> tuple[list[float], list[float]]:
    return sorted({lam for _, lam, _ in grid}, reverse=True), sorted({x for _, _, x in grid})


def _map(grid: Mapping[tuple[bool, float, float], Result], metric: str, block: bool) -> Floats:
    """The metric by λ, descending, and expansion; NaN where there is no cell."""
    lambdas, expansions = _axes_of(grid)
    cells = [[grid.get((block, lam, x)) for x in expansions] for lam in lambdas]
    return np.array(
        [[r.metrics[metric] if r else np.nan for r in row] for row in cells], dtype=np.float64
    )


def _numbers(ax: Axes, values: Floats, most: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        text = "—" if np.isnan(value) else f"{value:.2g}"
        ax.text(column, row, text, ha="center", va="center", fontsize=7,
                color="white" if value < 0.6 * most else "black")  # fmt: skip


def density(
    folder: Path,
    results: Sequence[Result],
    looks_of: Mapping[str, Look],
    targets: Sequence[float] = (),
) -> None:
    """Histograms of firing densities, a panel per architecture: its cell next to the middle target.

    All seeds of a cell together; latents that never fire are counted. One scale for all panels.
    """
    chosen = next_to(results, targets)
    latents = {r.name: pd.concat([sae.latents for sae in r.saes])["log10_density"] for r in chosen}
    logs = {name: np.clip(column.dropna(), -6, 0) for name, column in latents.items()}
    highest = {name: max(np.histogram(values, DENSITY_BINS)[0]) for name, values in logs.items()}
    flat = {name for name, n in highest.items() if n >= IN_ONE_BIN * max(1, len(logs[name]))}
    shown = [r for r in chosen if r.name not in flat] or chosen
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    with drawn(folder, "density", 2.5 * columns + 0.3, 1.9 * rows + 0.8) as figure:
        axes = _grid(figure, len(shown), rows, columns)
        for ax, r in zip(axes, shown, strict=True):
            values, look = latents[r.name], looks_of[r.architecture]
            part = np.full(len(logs[r.name]), 1 / max(1, len(values)))
            ax.hist(logs[r.name], bins=DENSITY_BINS.tolist(), weights=part, color=look.colour)
            silent = int(values.isna().sum())
            never = f"{silent:,} of {len(values):,} never fire" if silent else "all fire"
            ax.set_title(f"{look.label}\n{r.name}\n{never}", fontsize=7)
            ax.tick_params(labelsize=7)
        unit = unit_of(shown[0])
        figure.supxlabel(f"log₁₀ of the fraction of {unit} on which a latent fires", fontsize=8)
        figure.supylabel("fraction of latents", fontsize=8)
        left_out = ", ".join(sorted(flat)) if len(shown) < len(chosen) else ""
        figure.suptitle(
            f"Firing densities, {measured_on(results)}"
            + (f"\nnot drawn, nearly all latents in one bin: {left_out}" if left_out else ""),
            fontsize=8,
        )


def _grid(figure: Figure, n: int, rows: int, columns: int) -> list[Axes]:
    """n panels of one scale, row by row, without empty ones."""
    axes: list[Axes] = []
    for i in range(n):
        first = axes[0] if axes else None
        axes.append(figure.add_subplot(rows, columns, i + 1, sharex=first, sharey=first))
    return axes


def next_to(results: Sequence[Result], targets: Sequence[float]) -> list[Result]:
    """Each architecture's cell on the first hook with most seeds, then nearest the middle target.

    Of the width and the length of training that most of those have, where there is one. Of
    controls, which have hooks of their own, one each.
    """
    trained = [r for r in results if not r.negative]
    hook = next((r.hook for r in trained), None)
    most = max((len(r.saes) for r in trained), default=0)
    kinds = Counter((r.expansion, r.tokens) for r in trained if len(r.saes) == most)
    kind = kinds.most_common(1)[0][0] if kinds else None
    ordered = sorted(targets) or [16.0]
    target = ordered[len(ordered) // 2]

    def distance(r: Result) -> tuple[int, bool, float]:
        other = (r.expansion, r.tokens) != kind
        return -len(r.saes), other, abs(float(np.log(max(r.metrics["l0"] or 0, 1e-9) / target)))

    best: dict[str, Result] = {}
    for r in results:
        if r.negative or r.hook == hook:
            known = best.setdefault(r.architecture, r)
            best[r.architecture] = min(known, r, key=distance)
    return list(best.values())
