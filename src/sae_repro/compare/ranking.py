"""Architectures of one hook and width at one target L0, ranked in every metric of the verdict.

What one more epoch would turn is not ranked: where two architectures were trained for longer too, a
difference holds only if it holds at the longest training as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sae_repro.compare.differences import Estimate
from sae_repro.compare.matched import Matched
from sae_repro.compare.pairs import by_place
from sae_repro.compare.standings import Better, Standing, better, leaders

METRICS = (
    "kl", "kl_unseen", "ce_recovered_zero", "fvu", "fvu_unseen", "monosemantic_fraction_scored",
    "monosemantic_fraction_alive", "pw_mcc", "shared_fraction", "hole_rate", "absorption_rate",
    "dead_fraction_never",
)  # fmt: skip
"""The columns of the verdict, as far as they were measured."""
DECIDING = (
    ("kl_unseen", "kl"),
    ("fvu_unseen", "fvu"),
    ("monosemantic_fraction_scored", "monosemantic_fraction_alive"),
    ("shared_fraction", "pw_mcc"),
    ("hole_rate",),
)
"""What an SAE is chosen by: of each tuple, the first metric that was measured and not flagged."""
SATURATED = 0.99
"""CE recovered from which on it is not ranked, if all architectures of a place reach it: KL is."""


TESTABLE = ("hole_rate", "absorption_rate")
"""Rates over the pairs of concepts that are testable, which differ from SAE to SAE."""
Common = Callable[[Sequence[str], str], Mapping[str, Estimate]]
"""Of cells and one of `TESTABLE`: the rate of each over the pairs that all of them can be asked."""


@dataclass(frozen=True)
class Ranking:
    """One hook, width and target L0."""

    hook: str
    expansion: float
    target: float
    rows: Sequence[Matched]
    """Those of the usual training length, in the order of params.yaml."""
    other_lengths: Sequence[Matched]
    standings: Mapping[str, Sequence[Standing]]
    """By metric, of those of the usual length."""
    said: Mapping[str, Better]
    """By metric, for each ordered pair: whether the first is better; None where undecided."""
    turned: int
    """Differences that hold at the usual training length and not at the longest."""
    checked: frozenset[str]
    """Architectures that were trained for longer as well."""

    def best(self, metric: str) -> list[str]:
        """The architectures that are marked."""
        return leaders(self.standings[metric], self.said[metric])

    @property
    def several(self) -> bool:
        """Whether two of them at least have several seeds, so that anything may be claimed."""
        return sum(m.several for m in self.rows) > 1

    def deciding(self, flagged: frozenset[str]) -> list[str]:
        """The metrics that an SAE is chosen by here."""
        usable = [name for name in self.standings if name not in flagged]
        firsts = (next((n for n in names if n in usable), None) for names in DECIDING)
        return [name for name in firsts if name is not None]

    def undominated(self, flagged: frozenset[str]) -> list[str]:
        """Those than which no other is better in one deciding metric and worse in none."""
        names = [m.frontier.family for m in self.rows if m.several]
        metrics = self.deciding(flagged)

        def dominates(a: str, b: str) -> bool:
            said = [self.said[metric].get((a, b)) for metric in metrics]
            return True in said and False not in said

        return [b for b in names if not any(dominates(a, b) for a in names if a != b)]


def rankings(
    rows: Sequence[Matched], metrics: Sequence[str] = METRICS, common: Common | None = None
) -> list[Ranking]:
    """A ranking per hook, width and target at which an architecture of the usual length is read.

    Without `common`, rates over testable pairs are each SAE's own.
    """
    made = []
    places = by_place(rows)
    for (hook, expansion, target, _), group in places.items():
        if not group[0].frontier.usual:
            continue
        others = [
            other
            for (h, x, t, _), members in places.items()
            if (h, x, t) == (hook, expansion, target) and members is not group
            for other in members
        ]
        standings = _standings(group, metrics, common)
        said = {name: _better(name, of) for name, of in standings.items()}
        turned, checked = 0, frozenset[str]()
        longest = _longest(group, others)
        for name, of in _standings(longest, metrics, common).items():
            if name in said:
                later = better(of)
                lost = {p for p, v in later.items() if said[name].get(p) not in (None, v)}
                turned += len(lost) // 2
                said[name] = {p: None if p in lost else v for p, v in said[name].items()}
        checked |= {m.frontier.family for m in longest}
        made.append(
            Ranking(hook, expansion, target, group, others, standings, said, turned, checked)
        )
    return made


def _standings(
    rows: Sequence[Matched], metrics: Sequence[str], common: Common | None
) -> dict[str, list[Standing]]:
    of = {}
    for name in metrics:
        shared = common([m.nearest.name for m in rows], name) if common and name in TESTABLE else {}
        of[name] = [Standing(m, name, shared.get(m.nearest.name)) for m in rows]
    return {name: s for name, s in of.items() if any(np.isfinite(one.value) for one in s)}


def _better(metric: str, standings: Sequence[Standing]) -> Better:
    saturated = metric == "ce_recovered_zero" and all(
        s.value >= SATURATED for s in standings if np.isfinite(s.value)
    )
    said = better(standings)
    return dict.fromkeys(said) if saturated else said


def _longest(usual: Sequence[Matched], others: Sequence[Matched]) -> list[Matched]:
    """Those of the longest training among `others`, if it is longer than the usual one."""
    length = max((trained_on(m) for m in others), default=0)
    if length <= max(map(trained_on, usual)):
        return []
    return [m for m in others if trained_on(m) == length]


def trained_on(m: Matched) -> int:
    """Tokens on which its SAEs were trained; 0 where it is not known, as of imported ones."""
    return m.frontier.cells[0].trained_tokens or 0
