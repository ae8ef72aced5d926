"""Results of a search: trials.csv, its record; best.yaml, what `sae-repro adopt` takes over."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import exp
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from sae_repro.errors import StudyError
from sae_repro.files import canonical_json, write_text
from sae_repro.params import Tune
from sae_repro.progress import measured
from sae_repro.provenance import check_recorded
from sae_repro.tune.confirming import Confirmed, Setting, best_in
from sae_repro.tune.records import TrialRecord
from sae_repro.tune.space import FOLDER, part_in, parts_of

PARAM = "param."
FIXED = ("trial", "status", "best", "recipe", "reason", "choices", "key", "evaluation", "reports")
WEIGHTED = "weighted"


@dataclass(frozen=True)
class Trial:
    """A row of trials.csv."""

    number: int
    status: str
    """ok, failed or pruned."""
    best: bool
    """Whether it is the best, or on the front, of the trials that hold all constraints."""
    recipe: str
    choices: Mapping[str, Any]
    """The cell, as in params.yaml."""
    params: Mapping[str, str]
    """Values of the searched parameters, by name in the space."""
    metrics: Mapping[str, float]
    """Metrics on the tuning documents, and counts."""
    key: str
    """The trained cell in the store."""
    evaluation: str
    """Its measurement in the store; empty where there is none."""
    reason: str
    """Reason of a failure or of pruning."""
    reports: Mapping[str, float]
    """FVU by step, where the study has a pruner."""


def trials(study: Path = Path()) -> list[Trial]:
    """The trials of a study's folder by number, from tune/trials.csv.

    StudyError where there is none, or it is damaged.
    """
    path = study / FOLDER / "trials.csv"
    check_recorded(study, "tune", FOLDER / path.name, within=FOLDER)
    makes_it = f"`dvc repro {study / FOLDER / 'dvc.yaml'}` makes it"
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; {makes_it}") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"{path}: can't be read ({reason}); {makes_it} again") from None
    found = []
    for line, row in enumerate(frame.to_dict("records"), 2):
        try:
            found.append(_trial_of(row))
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError(
                f"{path}: line {line}: no trial ({type(error).__name__}: {error}); {makes_it} again"
            ) from None
    return found


def _trial_of(row: Mapping[Any, str]) -> Trial:
    filled = {str(column): text for column, text in row.items() if text != ""}
    return Trial(
        number=int(row["trial"]),
        status=row["status"],
        best=row["best"] == "yes",
        recipe=row["recipe"],
        choices=json.loads(row["choices"]),
        params={c.removeprefix(PARAM): t for c, t in filled.items() if c.startswith(PARAM)},
        metrics={
            column: _number(text)
            for column, text in filled.items()
            if column not in FIXED and not column.startswith(PARAM)
        },
        key=row["key"],
        evaluation=row["evaluation"],
        reason=row["reason"],
        reports=json.loads(row.get("reports") or "{}"),
    )


def _number(text: str) -> float:
    """A number as it was written: counts stay whole."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def best_of(tune: Tune, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The best trial, or the Pareto front by number, of the trials that hold all constraints.

    With `studies`, the best of each, in their order. Trials that are the same cell count once.
    """
    feasible = {t.key: t for t in reversed(records) if t.status == "ok" and t.feasible}
    finished = sorted(feasible.values(), key=lambda t: t.number)
    if parts := parts_of(tune):
        by_part = [records[place :: len(parts)] for place in range(len(parts))]
        return [trial for trials in by_part for trial in best_in(trials)[:1]]
    if tune.single:
        return sorted(finished, key=lambda t: t.losses)[:1]
    return [t for t in finished if not any(_dominates(other, t) for other in finished)]


def _dominates(a: TrialRecord, b: TrialRecord) -> bool:
    return a.losses != b.losses and all(x <= y for x, y in zip(a.losses, b.losses, strict=True))


def best_so_far(tune: Tune, records: Sequence[TrialRecord]) -> str:
    """The best so far in a few words, for the progress bar."""
    best = best_of(tune, records)
    if not best:
        return "no best yet"
    if parts := parts_of(tune):
        return f"a best in {len(best)} of {len(parts)} studies"
    if not tune.single:
        return f"front of {len(best)}"
    shown = ", ".join(f"{name} {best[0].metrics[name]:.4g}" for name in tune.objectives)
    return f"best {shown} (trial {best[0].number})"


def closing_lines(tune: Tune, records: Sequence[TrialRecord], tuned: Confirmed) -> Iterator[str]:
    """What a finished study prints: its trials by status, the best ones, and what comes next."""
    by_status = Counter(t.status for t in records)
    excluded = sum(not t.feasible for t in records)
    yield (
        f"tune: {len(records)} trials: "
        + ", ".join(f"{count} {status}" for status, count in by_status.items())
        + (f"; {excluded} break a constraint" if excluded else "")
    )
    if tuned.settings:
        yield from _closing_studies(tuned)
        return
    best = best_of(tune, records)
    if not best:
        yield "tune: no trial is best: none ended with all constraints held"
    else:
        yield (
            "tune: best, on the tuning documents:"
            if tune.single
            else (f"tune: {len(best)} trials on the front, on the tuning documents:")
        )
    for t in best:
        yield f"  trial {t.number}, {t.recipe}: {measured(t.metrics, *tune.objectives)}"
    yield (
        f"tune: {FOLDER}/trials.csv, {FOLDER}/best.yaml, {FOLDER}/figures; `sae-repro tune-ui` "
        "shows all trials, `sae-repro adopt` makes cells of the best"
    )


def _closing_studies(tuned: Confirmed) -> Iterator[str]:
    for setting in tuned.settings:
        values = ", ".join(f"{key} {value}" for key, value in setting.choices.items())
        yield f"  {setting.recipe}: {_gain(setting)}; {values} (trial {setting.trial})"
    yield (
        f"tune: {FOLDER}/tuning.md, {FOLDER}/trials.csv, {FOLDER}/figures; `sae-repro adopt` "
        "writes the settings that are better into params.yaml's recipes"
    )


def _gain(setting: Setting) -> str:
    if not setting.gains:
        return "better" if setting.improved else "nothing to compare"
    moved = exp(-fmean(setting.gains)) - 1
    return f"FVU {moved:+.1%}" + ("" if setting.improved else ", not beyond what seeds differ by")


def write_results(
    folder: Path, tune: Tune, name: str, records: Sequence[TrialRecord], tuned: Confirmed
) -> None:
    """trials.csv and best.yaml of the study `name`."""
    best = best_of(tune, records)
    write_text(folder / "trials.csv", _csv(tune, records, {t.number for t in best}))
    document: dict[str, Any] = {
        "study": name,
        "objectives": dict(tune.objectives),
        "trials": [
            {
                "trial": t.number,
                **({"study": str(part_in(tune, t.params))} if tuned.settings else {}),
                "values": {metric: t.metrics[metric] for metric in tune.objectives},
                "cell": dict(t.choices),
            }
            for t in best
        ],
    }
    if tuned.settings:
        document["recipes"] = {
            s.recipe: {"trial": s.trial, "improved": s.improved, "choices": s.choices}
            for s in tuned.settings
        }
    text = StringIO()
    YAML().dump(document, text)
    head = "# Written by the stage; `sae-repro adopt` takes these into params.yaml\n"
    write_text(folder / "best.yaml", head + text.getvalue())


def _csv(tune: Tune, records: Sequence[TrialRecord], best: set[int]) -> str:
    rows = [
        {
            "trial": t.number,
            "status": t.status,
            "best": "yes" if t.number in best else "no",
            "recipe": t.recipe,
            **{PARAM + name: value for name, value in t.params.items()},
            **({WEIGHTED: t.losses[0]} if tune.weights and t.losses else {}),
            **t.metrics,
            "reason": t.reason,
            "choices": canonical_json(t.choices),
            "key": t.key,
            "evaluation": t.evaluation,
            **({"reports": canonical_json(t.reports)} if t.reports else {}),
        }
        for t in records
    ]
    # metrics in order of appearance; columns of the trial as a whole at both ends
    all_columns = list(dict.fromkeys(column for row in rows for column in row))
    searched = [c for c in all_columns if c.startswith(PARAM)]
    measured = [c for c in all_columns if c not in FIXED and c not in searched]
    ends = [c for c in FIXED[4:] if c in all_columns]
    columns = [*FIXED[:4], *sorted(searched), *measured, *ends]
    # objects: a column with gaps keeps its whole numbers
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")
