"""findings.md: what the tables show, in sentences that a person reads; no stronger than intervals.

Differences are those of `compare.ranking`; a cell is called above a control, or a rate above 0,
only with several seeds. Metrics that do not tell trained cells from controls are left out.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from sae_repro.compare.answers import listed
from sae_repro.compare.collect import Result
from sae_repro.compare.differences import DIFFERENT, Estimate, estimate, verdict
from sae_repro.compare.ranking import Ranking
from sae_repro.compare.tables import with_interval
from sae_repro.files import write_text
from sae_repro.metrics import find, names_in
from sae_repro.metrics.labels import label
from sae_repro.metrics.metric import Place
from sae_repro.numerics.multiplicity import benjamini_hochberg, p_above_zero

MOST = 15
"""Sentences."""
NAMED = 4
"""Cells or architectures that one sentence names."""
FIRST = ("kl", "kl_unseen", "fvu", "fvu_unseen")
AT_EQUAL_L0: Place = "findings: at equal target L0"
AGAINST_CONTROLS: Place = "findings: against controls"
ABOVE_0: Place = "findings: above 0"


def write_findings(
    folder: Path, results: Sequence[Result], found: Sequence[Ranking], flagged: frozenset[str]
) -> None:
    """findings.md."""
    said = list(islice(sentences(results, found, flagged), MOST))
    left_out = ", ".join(sorted(flagged))
    caption = (
        "Generated from intervals over seeds and documents; differences are corrected for the "
        "number of pairs (Holm), and nothing is claimed of one seed. What is not said here is in "
        "the [tables](README.md), [verdict](verdict.md) first."
        + (
            f" Left out, as they do not tell trained cells from controls: {left_out}."
            * bool(flagged)
        )
    )
    lines = "".join(f"- {sentence}\n" for sentence in said or ["Nothing can be claimed."])
    write_text(folder / "findings.md", f"# Findings\n\n{caption}\n\n{lines}")


def sentences(
    results: Sequence[Result], found: Sequence[Ranking], flagged: frozenset[str] = frozenset()
) -> Iterator[str]:
    """All sentences, most important first."""
    trained = [r for r in results if r.ok and not r.negative]
    controls = [r for r in results if r.ok and r.negative]
    yield from remarks(results)
    yield from at_equal_l0(found, [*FIRST, *names_in(AT_EQUAL_L0)], flagged)
    for metric in names_in(AGAINST_CONTROLS):
        if metric not in flagged:
            yield from against_controls(trained, controls, metric)
    for metric in names_in(ABOVE_0):
        if metric not in flagged:
            yield from above_0(trained, metric)


def remarks(results: Sequence[Result]) -> Iterator[str]:
    """One sentence on the cells that must not be read by their name."""
    said = [
        f"{r.name} ({'; '.join(notes)})" for r in results if (notes := [*_failure(r), *r.remarks])
    ]
    if said:
        yield f"{_count(len(said), 'cell')} with remarks: {_some(said)}."


def _failure(r: Result) -> list[str]:
    return [f"failed: {r.measured['reason']}"] if "reason" in r.measured else []


def at_equal_l0(
    found: Sequence[Ranking], metrics: Sequence[str], flagged: frozenset[str]
) -> Iterator[str]:
    """A sentence per hook, width and metric with a best one; one on all metrics without any."""
    for hook, expansion in dict.fromkeys((r.hook, r.expansion) for r in found if r.several):
        here = [r for r in found if (r.hook, r.expansion) == (hook, expansion) and r.several]
        at = f"at {expansion:g}× on {hook}"
        undecided = []
        for metric in dict.fromkeys(metrics):
            ranked = [r for r in here if metric in r.standings]
            if metric in flagged or not ranked:
                continue
            if any(r.best(metric) for r in ranked):
                yield f"{_capital(label(metric))} {at}: {_best(ranked, metric)}."
            else:
                undecided.append(label(metric))
        if undecided:
            yield f"No architecture {at} is shown to be the best in {listed(undecided, 'or')}."


def _best(ranked: Sequence[Ranking], metric: str) -> str:
    row = find(metric)
    word = "lowest" if row is not None and row.better == "lower" else "highest"
    parts, without = [], []
    for ranking in ranked:
        best = ranking.best(metric)
        values = [s for s in ranking.standings[metric] if s.name in best]
        named = [f"{s.name} {with_interval(s.value, s.bounds)}" for s in values]
        if named:
            parts.append(f"{word} at L0 {ranking.target:g} {listed(named)}")
        else:
            without.append(f"{ranking.target:g}")
    return "; ".join(parts) + (f"; undecided at L0 {listed(without)}" if without else "")


def against_controls(
    trained: Sequence[Result], controls: Sequence[Result], metric: str
) -> Iterator[str]:
    """How many cells with several seeds are above every control."""
    cells = [e for r in trained if (e := estimate(r, metric)) and e.known]
    bases = [e for r in controls if (e := estimate(r, metric)) and e.known]
    if not cells or not bases:
        return
    highest = max(bases, key=lambda e: e.value)
    rest = [c.cell for c in cells if not all(_above(c, base) for base in bases)]
    not_above = f"; not {_some(rest)}" if rest else ""
    yield (
        f"{_capital(label(metric))}: {len(cells) - len(rest)} of {_count(len(cells), 'cell')} with "
        f"several seeds are above every control (the highest is {highest.cell}, "
        f"{highest}){not_above}."
    )


def _above(cell: Estimate, base: Estimate) -> bool:
    return cell.value > base.value and verdict(cell, base) == DIFFERENT


def above_0(trained: Sequence[Result], metric: str) -> Iterator[str]:
    """In how many cells with several seeds a rate is above 0, all of them tested together."""
    cells = [e for r in trained if (e := estimate(r, metric)) and e.known]
    if not cells:
        return
    # a fraction of latents has Wilson's interval, a normal one, over those of all seeds
    known = find(metric)
    normal = known is not None and known.interval == "Wilson over latents"
    holds = benjamini_hochberg(
        [p_above_zero(c.value, c.interval, None if normal else len(c.by_seed)) for c in cells]
    )
    positive = [c for c, above in zip(cells, holds, strict=True) if above]
    if not positive:
        yield (
            f"{_capital(label(metric))}: in none of {_count(len(cells), 'cell')} above 0 "
            "(5 % false discoveries)."
        )
        return
    most = max(positive, key=lambda c: c.value)
    yield (
        f"{_capital(label(metric))}: above 0 in {len(positive)} of {_count(len(cells), 'cell')} "
        f"with several seeds (5 % false discoveries), most in {most.cell}, {most}."
    )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return listed([*names[:NAMED], f"{more} more (cells.md)"] if more > 0 else names)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
