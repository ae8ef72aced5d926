"""Ladders: finished cells that differ in their width alone, at one target L0."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from sae_repro.compare.collect import Result
from sae_repro.compare.frontier import SPARSITY
from sae_repro.compare.tables import unit_of
from sae_repro.compare.widths.directions import WEIGHTS
from sae_repro.numerics.pairs import seed_pairs
from sae_repro.remarks import missed_on

LEAST_WIDTHS = 2


@dataclass(frozen=True)
class Ladder:
    """Cells of one architecture, hook, target L0 and length of training, by rising width."""

    cells: tuple[Result, ...]
    others: tuple[Result, ...]
    """Those of another architecture on the hook, at the target, of the same length."""

    @property
    def hook(self) -> str:
        """What all its cells reconstruct."""
        return self.cells[0].hook

    @property
    def target(self) -> float:
        """Their target L0."""
        return target_of(self.cells[0])

    @property
    def tokens(self) -> int | None:
        """Training tokens of each; None of imported SAEs."""
        return self.cells[0].trained_tokens

    @property
    def place(self) -> dict[str, object]:
        """What tables say of it, one column each."""
        missed = any(missed_on(r.cell, r.measured) for r in self.cells)
        return {
            "hook": self.hook,
            "architecture": self.cells[0].architecture,
            "target_l0": self.target,
            "training_tokens": self.tokens,
            "missed": "yes" if missed else "no",
        }

    @property
    def name(self) -> str:
        """For captions of panels."""
        length = "" if self.tokens is None else f", {self.tokens:,} {unit_of(self.cells[0])}"
        return f"{self.cells[0].architecture}, L0 {self.target:g}{length}"

    @property
    def steps(self) -> list[tuple[Result, Result]]:
        """(narrow, wide) of neighbouring widths."""
        return list(pairwise(self.cells))

    @property
    def pairs(self) -> list[tuple[Result, Result]]:
        """(narrow, wide) of every two widths."""
        return list(combinations(self.cells, 2))


def target_of(r: Result) -> float:
    """The target L0 of a cell that has one."""
    target = r.cell.l0_target
    assert target is not None
    return float(target)


def width_of(r: Result) -> int:
    """K of a cell."""
    return int(r.measured["d_sae"])


def by_seed(r: Result) -> dict[int, Result]:
    """The SAEs of a cell that trained to their end, by their seeds."""
    return {sae.cell.seed: sae for sae in r.saes}


def pairs_of(a: Result, b: Result) -> list[tuple[int, int]]:
    """The pairs of seeds by which two cells are compared (`seed_pairs`); none of one SAE alone."""
    return seed_pairs(*({seed: sae.name for seed, sae in by_seed(r).items()} for r in (a, b)))


def ladders(results: Sequence[Result]) -> list[Ladder]:
    """Those of two widths or more, in the order of params.yaml.

    Cells without a target L0 are on none, as widths differ in their L0 then; nor are negative
    controls, and cells whose weights are not in artifacts/train. Of two cells of one width the one
    with more seeds is taken.
    """
    usable = [
        r for r in results
        if r.ok and not r.negative and r.cell.l0_target is not None
        and all((sae.trained / WEIGHTS).is_file() for sae in r.saes)
    ]  # fmt: skip
    groups: dict[str, dict[int, Result]] = {}
    for r in usable:
        chosen = {name: v for name, v in r.cell.identity().items() if name not in SPARSITY}
        by_width = groups.setdefault(repr((r.architecture, _place(r), sorted(chosen.items()))), {})
        known = by_width.get(width_of(r))
        if known is None or len(r.saes) > len(known.saes):
            by_width[width_of(r)] = r
    found = []
    for by_width in groups.values():
        if len(by_width) < LEAST_WIDTHS:
            continue
        cells = tuple(by_width[width] for width in sorted(by_width))
        place, own = _place(cells[0]), {r.name for r in cells}
        others = tuple(
            r
            for r in usable
            if _place(r) == place and r.name not in own and r.architecture != cells[0].architecture
        )
        found.append(Ladder(cells, others))
    return found


def _place(r: Result) -> tuple[str, float, int | None]:
    return r.hook, target_of(r), r.trained_tokens
