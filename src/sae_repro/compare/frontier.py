"""An architecture's frontier: the line through its cells, for figures and matched L0 alike.

The line is straight between neighbouring cells in (log L0, log FVU); `Frontier.at` says where it is
read and how far it may be off. No figure and no table interpolates otherwise. A cell whose L0 is
within `remarks.TOLERANCE` of a target is at the target: it has not missed it. So far the line also
goes on beyond its ends, "at the edge": where a range ends at 11.99 or at 12.01, L0 = 12 is read.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import unit_of
from sae_repro.remarks import TOLERANCE

Floats = npt.NDArray[np.float64]

LEAST_CELLS = 3
"""Cells without which the error of reading between two of them is unknown."""
SAME_L0 = 0.02
"""Cells whose L0 differ by less are one point of the line, their geometric mean."""
STEEPEST = 1.5
"""Bound on |d log FVU / d log L0| where a frontier has too few cells to measure it."""
SPARSITY = {
    "k", "lambda", "target_l0", "seed", "seeds", "sha256", "import", "hook", "hooks", "target_hook",
    "expansion", "tokens",
}  # fmt: skip
"""Choices in which the cells of a frontier may differ, or that group them already."""
TUNED = {
    "lr", "lr_warmup", "lr_decay", "batch_size", "adam_eps", "grad_clip", "lambda_warmup",
    "auxk_coefficient", "dead_tokens", "resample_every", "resample_until", "resample_tokens",
    "jumprelu_bandwidth", "prefix_shares", "prefix_weights", "prefix_k", "n_prefixes",
    "prefix_alpha",
}  # fmt: skip
"""Choices that tuning may have made for each sparsity: they set no cell of a frontier apart, but
where two cells have one sparsity and are told apart by them alone."""

How = Literal["at a cell", "at the edge", "between cells", "too few cells", "outside"]


@dataclass(frozen=True)
class Reading:
    """Where a target lies on a frontier: points `left` and `right` of its line, read at log L0 `t`.

    `left` = `right`: that point as it is. `error` is a bound in log FVU on the difference of the
    line and the frontier; infinite where there is nothing to read.
    """

    how: How
    t: float
    left: int = 0
    right: int = 0
    error: float = np.inf

    @property
    def readable(self) -> bool:
        """Whether there is a value."""
        return self.how in ("at a cell", "at the edge", "between cells")

    def of(self, x: Floats, y: Floats) -> Floats:
        """The line's value: `x` [..., points] of log L0, `y` of what is read."""
        if self.left == self.right:
            return y[..., self.left]
        a, b = x[..., self.left], x[..., self.right]
        slope = (y[..., self.right] - y[..., self.left]) / (b - a)
        value: Floats = y[..., self.left] + slope * (self.t - a)
        return value

    def about(self, line: tuple[Floats, Floats], x: Floats, y: Floats) -> Floats:
        """`of` what scatters about the points of `line`, such as seeds: (`x`, `y`) [..., points].

        Each is moved along the line's slope to the log L0 of its point: two neighbours whose L0
        come close in one seed make no slope of their own. The mean reads what `of` the mean does.
        """
        if self.left == self.right:
            return y[..., self.left]
        at, values = line
        a, b = at[self.left], at[self.right]
        moved = y - (values[self.right] - values[self.left]) / (b - a) * (x - at)
        part = (self.t - a) / (b - a)
        read: Floats = (1 - part) * moved[..., self.left] + part * moved[..., self.right]
        return read


@dataclass(frozen=True)
class Frontier:
    """Cells that differ in their sparsity alone, by rising L0: one hook, one width, equal seeds."""

    architecture: str
    hook: str
    expansion: float
    cells: tuple[Result, ...]
    variant: str = ""
    """What sets it apart where its architecture has several on a hook at a width."""
    tokens: int | None = None
    """How long its cells trained, where they say so."""
    usual: bool = True
    """Whether that is the length of most cells on the hook at the width."""

    @property
    def family(self) -> str:
        """Its name in tables, however long it trained."""
        return self.architecture + (f" ({self.variant})" if self.variant else "")

    @property
    def label(self) -> str:
        """Its name in tables."""
        length = "default length"
        if self.tokens is not None:
            length = f"{self.tokens:,} {unit_of(self.cells[0])}"
        return self.family + ("" if self.usual else f", {length}")

    @property
    def l0(self) -> Floats:
        """Reached L0 of each cell."""
        return self.values("l0")

    def values(self, metric: str) -> Floats:
        """The metric of each cell; NaN where it was not measured."""
        return np.array([r.metrics.get(metric) for r in self.cells], dtype=np.float64)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the cells of each point of the line: one, or several of nearly the same L0."""
        return grouped(self.l0)

    @cached_property
    def line(self) -> tuple[Floats, Floats]:
        """(log L0, log FVU) of the points of the line, by rising L0; of seeds, their means."""
        l0, fvu = (self.points(np.array([r.mean_log(metric) for r in self.cells]))
                   for metric in ("l0", "fvu"))  # fmt: skip
        return l0, fvu

    def seeds_at(self, read: Reading) -> int:
        """Seeds that finished in every cell from which `read` comes."""
        cells = {i for point in {read.left, read.right} for i in self.groups[point]}
        return min(len(self.cells[i].saes) for i in cells)

    def points(self, values: Floats) -> Floats:
        """`values` [..., cells] as [..., points]."""
        return np.stack([values[..., list(group)].mean(axis=-1) for group in self.groups], axis=-1)

    def at(self, target: float) -> Reading:
        """Where and how `target` is read."""
        return reading(*self.line, target)

    def drawn(self, targets: Iterable[float]) -> tuple[Floats, Floats]:
        """(L0, FVU) of the line, as far as tables read it: to a target just beyond its ends."""
        x, y = self.line
        read = [r for target in targets if (r := self.at(target)).readable and r.left != r.right]
        beyond = [r for r in read if not x[0] <= r.t <= x[-1]]
        xs = np.concatenate([x, [r.t for r in beyond]])
        ys = np.concatenate([y, [float(r.of(x, y)) for r in beyond]])
        order = np.argsort(xs)
        return np.exp(xs[order]), np.exp(ys[order])


def grouped(l0: Floats) -> tuple[tuple[int, ...], ...]:
    """Neighbours in rising `l0` that differ by less than `SAME_L0` from the first of a group."""
    groups: list[list[int]] = []
    for i, value in enumerate(l0):
        if groups and value < l0[groups[-1][0]] * (1 + SAME_L0):
            groups[-1].append(i)
        else:
            groups.append([i])
    return tuple(map(tuple, groups))


def reading(x: Floats, y: Floats, target: float) -> Reading:
    """Where `target` is read on the line through (`x`, `y`), and the bound on the line's error.

    With three points or more: on the line, which goes on for a target beyond an end that has a cell
    at it. With fewer: the cell at the target as it is.
    """
    t = float(np.log(target))
    nearest = int(np.argmin(np.abs(x - t)))
    at_a_cell = abs(float(np.expm1(x[nearest] - t))) <= TOLERANCE
    if len(x) < LEAST_CELLS:
        if not at_a_cell:
            return Reading("too few cells", t)
        off = STEEPEST * abs(float(x[nearest]) - t)
        return Reading("at a cell", t, nearest, nearest, off)
    inside = x[0] <= t <= x[-1]
    if not at_a_cell and not inside:
        return Reading("outside", t)
    how: How = "at the edge" if not inside else "at a cell" if at_a_cell else "between cells"
    left = int(np.clip(np.searchsorted(x, t, side="right") - 1, 0, len(x) - 2))
    return Reading(how, t, left, left + 1, _error(x, y, t, left))


def _error(x: Floats, y: Floats, t: float, left: int) -> float:
    """Bound on |line − frontier| at `t` between the points `left` and `left` + 1, or beyond an end.

    Each inner point, left out and predicted from its neighbours on the line, is off by e; e·(1/h +
    1/h′), with h and h′ the distances to them, is the change of slope there. A frontier that curves
    one way lies between the line and its neighbouring segments, prolonged, so within distance ×
    change of slope of the line, seen from either point. Where it curves both ways: within the
    nearer distance × the larger change. An end, which cannot be left out, is taken to turn as much
    as the point next to it.
    """
    turn = np.diff(np.diff(y) / np.diff(x))  # at the inner points
    a, b = np.array([turn[0], *turn, turn[-1]])[[left, left + 1]]
    from_left, from_right = abs(t - x[left]), abs(t - x[left + 1])
    if a * b >= 0:
        return float(min(abs(a) * from_left, abs(b) * from_right))
    return float(max(abs(a), abs(b)) * min(from_left, from_right))


def on_lines(results: Iterable[Result]) -> list[Result]:
    """Finished cells but negative controls, and but what reconstructs without an error."""
    return [
        r
        for r in results
        if r.ok
        and not r.negative
        and all((sae.metrics[name] or 0) > 0 for sae in r.saes for name in ("l0", "fvu"))
    ]


def frontiers(results: Sequence[Result]) -> list[Frontier]:
    """Finished cells grouped by all choices but their sparsity, in the order of params.yaml.

    Where at least `LEAST_CELLS` of them have several seeds each, cells with fewer are no points.
    """
    groups: dict[tuple[str, str, float], dict[tuple[str, int | None], list[Result]]] = {}
    lengths: dict[tuple[str, float], Counter[int | None]] = defaultdict(Counter)
    for r in _with_most_seeds(on_lines(results)):
        variants = groups.setdefault((r.architecture, r.hook, r.expansion), {})
        variants.setdefault((repr(_choices(r)), r.tokens), []).append(r)
        lengths[r.hook, r.expansion][r.tokens] += 1
    made = []
    for (architecture, hook, expansion), variants in groups.items():
        usual = lengths[hook, expansion].most_common(1)[0][0]
        lines = _joined(variants)
        for cells, variant in zip(lines, _apart(lines), strict=True):
            ordered = tuple(sorted(cells, key=lambda r: r.metrics["l0"] or 0))
            tokens = ordered[0].tokens
            made.append(
                Frontier(architecture, hook, expansion, ordered, variant, tokens, tokens == usual)
            )
    return made


def _joined(variants: Mapping[tuple[str, int | None], list[Result]]) -> list[list[Result]]:
    """Groups that differ in what was tuned alone are one, unless two cells have one sparsity."""
    families: dict[tuple[str, int | None], list[list[Result]]] = defaultdict(list)
    for (_, tokens), cells in variants.items():
        shared = {name: v for name, v in _choices(cells[0]).items() if name not in TUNED}
        families[repr(shared), tokens].append(cells)
    lines = []
    for groups in families.values():
        together = [r for cells in groups for r in cells]
        settings = {r.sparsity for r in together}
        lines += [together] if len(settings) == len(together) else groups
    return lines


def _with_most_seeds(results: Sequence[Result]) -> list[Result]:
    """Without cells whose family has `LEAST_CELLS` of one larger number of seeds: these say more.

    A mean over seeds and one seed on one line would make the readings between them one seed's.
    """
    families = [repr((r.architecture, r.hook, r.expansion, r.tokens, {**_choices(r), "seeds": 0}))
                for r in results]  # fmt: skip
    lines = Counter((family, len(r.members)) for family, r in zip(families, results, strict=True))
    return [
        r
        for family, r in zip(families, results, strict=True)
        if not any(
            of == family and seeds > len(r.members) and cells >= LEAST_CELLS
            for (of, seeds), cells in lines.items()
        )
    ]


def _choices(r: Result) -> dict[str, Any]:
    """What cells of one frontier have in common; a seed of its own is one seed like another."""
    chosen = {name: v for name, v in r.cell.identity().items() if name not in SPARSITY}
    return {**dict(sorted(chosen.items())), "seeds": len(r.members)}


def _apart(variants: Sequence[Sequence[Result]]) -> list[str]:
    """What sets each of several groups of cells apart: the choices that not all of them share.

    Not those in which cells of one group differ, nor how long they trained.
    """
    own: list[list[Mapping[str, Any]]] = [[_choices(r) for r in cells] for cells in variants]
    names = dict.fromkeys(name for group in own for chosen in group for name in chosen)
    constant = [n for n in names if all(len({repr(c.get(n)) for c in g}) == 1 for g in own)]
    choices = [group[0] for group in own]
    differing = [n for n in constant if any(a.get(n) != b.get(n) for a, b in pairwise(choices))]
    texts = [", ".join(f"{n} {chosen.get(n, 'default')}" for n in differing) for chosen in choices]
    # lines that only what was tuned sets apart
    lengths = [(text, cells[0].tokens) for text, cells in zip(texts, variants, strict=True)]
    return [
        text if lengths.count(length) == 1 else f"{text}, {cells[0].name}".removeprefix(", ")
        for text, length, cells in zip(texts, lengths, variants, strict=True)
    ]
