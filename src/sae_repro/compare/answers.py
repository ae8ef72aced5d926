"""The verdict in sentences, from its intervals alone: which SAE, and can its features be believed.

What they do not hold is called undecided; nothing is claimed of one seed.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sae_repro.compare.collect import Result
from sae_repro.compare.ranking import Ranking
from sae_repro.compare.standings import Standing
from sae_repro.compare.tables import number
from sae_repro.metrics.labels import label

NAMED = 3
"""Architectures that are named where none is the best; of more, only their number."""
Bounds = tuple[float, float]


def answers(
    found: Sequence[Ranking], results: Sequence[Result], flagged: frozenset[str]
) -> Iterator[str]:
    """A paragraph per hook and width at which two architectures have several seeds."""
    places = dict.fromkeys((r.hook, r.expansion) for r in found if r.several)
    for hook, expansion in places:
        here = [r for r in found if (r.hook, r.expansion) == (hook, expansion) and r.several]
        at = f" ({hook}, {expansion:g}×)" if len(places) > 1 else ""
        yield f"**Which SAE?**{at} {_which(here, flagged)} {_length(here)}"
        yield f"**Can its features be believed?**{at} {_believed(here, results, flagged)}"
    if not places:
        yield (
            "**Which SAE, and can its features be believed? Undecided**: no two architectures "
            "have several seeds at one L0, and another seed may turn what one shows."
        )


def _which(here: Sequence[Ranking], flagged: frozenset[str]) -> str:
    by_choice: dict[str, list[str]] = {}
    for ranking in here:
        names, of = ranking.undominated(flagged), sum(m.several for m in ranking.rows)
        worse = [m.frontier.family for m in ranking.rows
                 if m.several and m.frontier.family not in names]  # fmt: skip
        if len(names) == 1:
            choice = f"**{names[0]}**"
        elif not worse or not names:
            choice = f"undecided among all {of}"
        elif len(names) <= NAMED:
            choice = f"**{listed(names, 'or')}** (undecided between them)"
        else:
            choice = f"not {listed(worse, 'or')}, undecided among the other {len(names)}"
        by_choice.setdefault(choice, []).append(f"{ranking.target:g}")
    parts = [f"at L0 {listed(l0)} {choice}" for choice, l0 in by_choice.items()]
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def listed(items: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return f" {last} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _length(here: Sequence[Ranking]) -> str:
    checked = frozenset[str]().union(*(r.checked for r in here))
    if len(checked) < 2:
        only = f" of {listed(sorted(checked))} alone" if checked else ""
        how = "was varied" + only if checked else "was not varied"
        return f"(Training length {how}: longer training may turn this.)"
    turned = sum(r.turned for r in here)
    return (
        f"(Checked at longer training of {listed(sorted(checked))}: {_differences(turned)} or lost "
        "there, and undecided; of the others, longer training may turn this.)"
    )


def _differences(n: int) -> str:
    return "one difference was turned" if n == 1 else f"{n or 'no'} differences were turned"


def _believed(here: Sequence[Ranking], results: Sequence[Result], flagged: frozenset[str]) -> str:
    parts = [*_again(here, flagged), *_above_controls(here, results, flagged)]
    if not parts:
        return "Undecided: neither consistency over seeds nor M was measured with an interval."
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _again(here: Sequence[Ranking], flagged: frozenset[str]) -> Iterator[str]:
    """Whether another seed finds the latents again."""
    found = _known(here, "shared_fraction", flagged)
    if found:
        low, high = _extremes(found)
        fewest, most = (_named(here, s) for s in (found[0], found[-1]))
        if high < 0.5:
            said = "no, not one by one: another seed finds fewer than half of the latents again"
        elif low > 0.5:
            said = "mostly: another seed finds more than half of the latents again"
        else:
            said = "it depends on the architecture how many latents another seed finds again"
        yield f"{said} ({fewest} to {most})"
        return
    found = _known(here, "pw_mcc", flagged)
    if found:
        fewest, most = (_named(here, s) for s in (found[0], found[-1]))
        yield f"the best matches of two seeds' latents have a mean cosine of {fewest} to {most}"
        return
    if any(metric in r.standings for r in here for metric in ("shared_fraction", "pw_mcc")):
        yield "how many latents another seed finds again does not tell these SAEs from controls"
        return
    yield "whether another seed finds the same latents was not measured"


def _above_controls(
    here: Sequence[Ranking], results: Sequence[Result], flagged: frozenset[str]
) -> Iterator[str]:
    """How many architectures have more monosemantic latents than every control."""
    names = ("monosemantic_fraction_scored", "monosemantic_fraction_alive")
    metric = next((n for n in names if _known(here, n, flagged)), None)
    if metric is None:
        return
    found = _known(here, metric, flagged)
    hook = here[0].hook
    controls = [
        (bounds, r.architecture)
        for r in results
        if r.ok and r.negative and (r.hook == hook or r.hook.endswith(f"/{hook}"))
        and (bounds := r.interval(metric)) is not None
    ]  # fmt: skip
    fewest, most = (_named(here, s) for s in (found[0], found[-1]))
    range_ = f"{label(metric)}: {fewest} to {most}"
    if not controls:
        yield f"{range_}, without a control beside it"
        return
    highest = max(controls, key=lambda control: control[0][1])
    above = [s for s in found if s.bounds is not None and s.bounds[0] > highest[0][1]]
    rest = [_place(here, s) for s in found if s not in above]
    beyond = f", all but {listed(rest)}" if 0 < len(rest) <= NAMED else ""
    yield (
        f"{range_}; {len(above)} of {len(found)} are above every control{beyond} (the highest, "
        f"{highest[1]}, reaches at most {number(float(highest[0][1]))})"
    )


def _known(here: Sequence[Ranking], metric: str, flagged: frozenset[str]) -> list[Standing]:
    """Of several seeds, with an interval, by rising value."""
    if metric in flagged:
        return []
    known = [
        s
        for ranking in here
        for s in ranking.standings.get(metric, ())
        if s.of.several and np.isfinite(s.value) and s.bounds is not None
    ]
    return sorted(known, key=lambda s: s.value)


def _extremes(found: Sequence[Standing]) -> Bounds:
    bounds = [s.bounds for s in found if s.bounds is not None]
    return min(float(b[0]) for b in bounds), max(float(b[1]) for b in bounds)


def _place(here: Sequence[Ranking], s: Standing) -> str:
    return s.name if len(here) == 1 else f"{s.name} at L0 {s.of.target:g}"


def _named(here: Sequence[Ranking], s: Standing) -> str:
    low, high = s.bounds or (np.nan, np.nan)
    values = f"{number(s.value)} [{number(float(low))}, {number(float(high))}]"
    return f"{values} of {_place(here, s)}"
