"""tune/tuning.csv and tune/tuning.md: the budget of each study, what tuning moved, and rankings."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import exp, log
from pathlib import Path

import pandas as pd

from sae_repro.files import write_text
from sae_repro.params import Tune
from sae_repro.tune.confirming import BEST_FEW, Confirmed, Tuned, mean_of, spread_of
from sae_repro.tune.records import TrialRecord
from sae_repro.tune.results import best_of

TIMES = 2.0
"""Two recipes are told apart where they differ by more than so many times their uncertainty."""


def write_tables(
    folder: Path, tune: Tune, records: Sequence[TrialRecord], tuned: Confirmed
) -> None:
    """tuning.csv, a row per recipe and target L0 (of one search: per best trial), and tuning.md."""
    rows = [_row(part) for part in tuned.parts] or [
        {
            "trial": t.number,
            "recipe": t.recipe,
            **{name: t.metrics[name] for name in tune.objectives},
        }
        for t in best_of(tune, records)
    ]
    frame = pd.DataFrame(rows, dtype=object)
    write_text(folder / "tuning.csv", frame.to_csv(index=False, lineterminator="\n"))
    lines = _studies(tune, tuned) if tuned.parts else _one_search(tune, rows)
    write_text(folder / "tuning.md", "\n".join(lines) + "\n")


def _row(t: Tuned) -> dict[str, object]:
    before, after = mean_of(t.default), mean_of(t.tuned)
    return {
        "recipe": t.part.recipe,
        "target_l0": t.part.target_l0,
        "trials": t.trials,
        "trials_holding_constraints": t.feasible,
        "training_tokens": t.training_tokens,
        "tuning_tokens": t.tuning_tokens,
        "best_trial": t.best,
        "best_fvu": t.best_fvu,
        "spread_of_best_trials": t.spread,
        "seeds": len(t.default),
        "default_fvu": before,
        "default_spread": spread_of(t.default),
        "tuned_fvu": after,
        "tuned_spread": spread_of(t.tuned),
        "moved": None if not before or not after else after / before - 1,
    }


def _one_search(tune: Tune, rows: Sequence[dict[str, object]]) -> Iterator[str]:
    yield "# Tuning"
    yield ""
    yield (
        "One search over all recipes, which compares no two of them: with `studies` in "
        "tune/params.yaml each is tuned by itself at each target L0. Its best trials:"
    )
    yield ""
    names = ["trial", "recipe", *tune.objectives]
    yield from _table(names, [[_text(row[name]) for name in names] for row in rows])


def _studies(tune: Tune, tuned: Confirmed) -> Iterator[str]:
    assert tune.studies is not None
    first = next((part for part in tuned.parts if part.tuning_tokens), tuned.parts[0])
    seeds = 1 + len(tune.studies.seeds)
    yield "# Tuning"
    yield ""
    yield (
        f"{len(tuned.parts)} studies, one per recipe and target L0, each of {first.trials} trials "
        f"(sampler {tune.sampler}; the first is the recipe as it is) on "
        f"{first.training_tokens:,} training tokens. FVU is that on {first.tuning_tokens:,} tuning "
        "tokens, read at the target L0; a trial whose L0 misses it by more than "
        f"{tune.studies.l0_tolerance:.0%} is never best. No reported number comes from the tuning "
        "documents. One setting per recipe serves all its L0s. Mean and standard deviation over "
        f"{seeds} seeds, of which the first has chosen; the spread is that of log FVU over the "
        f"best {BEST_FEW} trials."
    )
    yield ""
    yield from _table(
        ["recipe", "L0", "holding it", "as it is", "best trial", "tuned", "moved", "spread"],
        [
            [
                t.part.recipe, f"{t.part.target_l0:g}", f"{t.feasible} of {t.trials}",
                _over_seeds(t.default), _text(t.best_fvu), _over_seeds(t.tuned), _moved(t),
                "–" if t.spread is None else f"{t.spread:.1%}",
            ]
            for t in tuned.parts
        ],
    )  # fmt: skip
    yield ""
    yield "## Chosen settings"
    yield ""
    yield (
        "Better: with every seed but the first, the mean over L0s of log FVU is lower than that of "
        "the recipe as it is. `sae-repro adopt` writes these into params.yaml, and no others."
    )
    yield ""
    yield from _table(
        ["recipe", "better", "trial", "setting (as it is)"],
        [
            [
                s.recipe, "yes" if s.improved else "no", str(s.trial),
                ", ".join(
                    f"{key} {value:g} ({before:g})"
                    if isinstance(value, float) and isinstance(before, int | float)
                    else f"{key} {value} ({before})"
                    for key, value in s.choices.items()
                    for before in [tune.defaults[s.recipe][key]]
                ),
            ]
            for s in tuned.settings
        ],
    )  # fmt: skip
    yield from _rankings(tune, tuned)


def _rankings(tune: Tune, tuned: Confirmed) -> Iterator[str]:
    assert tune.studies is not None
    yield ""
    yield "## Rankings"
    yield ""
    yield "By FVU, lowest first; where the target L0 is not held, a recipe has no place."
    yield ""
    by_l0 = {
        l0: [t for t in tuned.parts if t.part.target_l0 == l0] for l0 in tune.studies.target_l0
    }
    yield from _table(
        ["L0", "recipes as they are", "tuned"],
        [
            [f"{l0:g}", _ranking(parts, "default"), _ranking(parts, "tuned")]
            for l0, parts in by_l0.items()
        ],
    )
    sentences = [
        line
        for parts in by_l0.values()
        for a, b in combinations(parts, 2)
        for line in sentence(a, b)
    ]
    if sentences:
        yield ""
        yield (
            f"Pairs that tuning leaves undecided (they differ by less than {TIMES:g} times the "
            "spread of trials and seeds of both) or has turned; every other pair stands as ranked."
        )
        yield ""
        yield from (f"- {line}" for line in sentences)


def sentence(a: Tuned, b: Tuned) -> Iterator[str]:
    """A line on two recipes at one L0: undecided, or turned by tuning; none where both agree."""
    tuned_a, tuned_b = mean_of(a.tuned), mean_of(b.tuned)
    where = f"L0 {a.part.target_l0:g}: {a.part.recipe} and {b.part.recipe}"
    if tuned_a is None or tuned_b is None:
        missing = [t.part.recipe for t in (a, b) if mean_of(t.tuned) is None]
        yield f"{where}: undecided, {' and '.join(missing)} does not hold the target L0"
        return
    gap = log(tuned_b) - log(tuned_a)
    default_a, default_b = mean_of(a.default), mean_of(b.default)
    turned = False
    if default_a is not None and default_b is not None:
        turned = (log(default_b) - log(default_a)) * gap < 0
    numbers = f"FVU {tuned_a:.4g} and {tuned_b:.4g} when tuned"
    if turned:
        numbers += f", {default_a:.4g} and {default_b:.4g} as they are"
    if a.margin is None or b.margin is None:
        yield f"{where}: undecided, too few trials hold the target L0 for a spread; {numbers}"
        return
    needed = TIMES * (a.margin**2 + b.margin**2) ** 0.5
    if abs(gap) <= needed:
        yield (
            f"{where}: undecided; {numbers}: {exp(abs(gap)) - 1:.1%} apart, "
            f"{exp(needed) - 1:.1%} needed"
        )
    elif turned:
        lower = a if gap > 0 else b
        yield f"{where}: turned by tuning, {lower.part.recipe} is lower; {numbers}"


def _ranking(parts: Sequence[Tuned], which: str) -> str:
    means = {t.part.recipe: mean_of(getattr(t, which)) for t in parts}
    held = {recipe: fvu for recipe, fvu in means.items() if fvu is not None}
    return ", ".join(
        f"{recipe} {fvu:.4g}" for recipe, fvu in sorted(held.items(), key=lambda item: item[1])
    )


def _over_seeds(fvus: Sequence[float | None]) -> str:
    mean, spread = mean_of(fvus), spread_of(fvus)
    if mean is None:
        return f"{sum(fvu is not None for fvu in fvus)} of {len(fvus)} seeds hold the L0"
    return f"{mean:.4g}" if spread is None else f"{mean:.4g} ± {mean * spread:.2g}"


def _moved(t: Tuned) -> str:
    before, after = mean_of(t.default), mean_of(t.tuned)
    return "–" if before is None or after is None else f"{after / before - 1:+.1%}"


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
