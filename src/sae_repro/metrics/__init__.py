"""The registry of metrics: one row per metric that a study writes, and filters of the rows.

    find("probe_auc_2").definition
    names_in("structure.md", measured)

Names of metrics stand nowhere else, but where a metric is computed: tables, findings, intervals
over seeds and tuning take theirs from here.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import groupby

from sae_repro.metrics.consistency import CONSISTENCY
from sae_repro.metrics.dictionary import DICTIONARY
from sae_repro.metrics.fidelity import FIDELITY
from sae_repro.metrics.firing import FIRING
from sae_repro.metrics.known_atoms import CONTROLS
from sae_repro.metrics.language import LANGUAGE
from sae_repro.metrics.metric import COLUMN_SUFFIXES, Metric, Place
from sae_repro.metrics.monosemanticity import CLASSES, MONOSEMANTICITY
from sae_repro.metrics.reconstruction import RECONSTRUCTION
from sae_repro.metrics.references import REFERENCES
from sae_repro.metrics.seeds import mean_over_seeds
from sae_repro.metrics.steering import STEERING
from sae_repro.metrics.structure import STRUCTURE

AREAS = {
    "Sparsity and reconstruction": RECONSTRUCTION,
    "Fidelity to the language model": FIDELITY,
    "Firing": FIRING,
    "Monosemanticity": MONOSEMANTICITY,
    "Structure": STRUCTURE,
    "Dictionary": DICTIONARY,
    "Word patterns and ablation": LANGUAGE,
    "Steering": STEERING,
    "References": REFERENCES,
    "Consistency over seeds": CONSISTENCY,
    "Control: known atoms": CONTROLS,
}
"""All rows in the order of tables; the last area's names are those of control's own table."""

METRICS = tuple(row for rows in AREAS.values() for row in rows if row.choice != "control")
"""The rows of what the stage `evaluate` writes."""

__all__ = [
    "AREAS",
    "CLASSES",
    "COLUMN_SUFFIXES",
    "CONTROLS",
    "METRICS",
    "Metric",
    "find",
    "matching",
    "mean_over_seeds",
    "names_in",
    "nearest",
]


def find(name: str, rows: Iterable[Metric] = METRICS) -> Metric | None:
    """The row of a concrete name; one metric's own goes before a family that it would fit."""
    ordered = sorted(rows, key=lambda row: row.parameter is not None)
    return next((row for row in ordered if row.parameter_of(name) is not None), None)


def matching(name: str) -> list[Metric]:
    """The rows of a metric or of a row's own name, control's last; none for an unknown name."""
    concrete = find(name), find(name, CONTROLS)
    return [row for rows in AREAS.values() for row in rows if row.name == name or row in concrete]


def nearest(name: str) -> list[str]:
    """Names of metrics that an unknown `name` may have meant, at most three."""
    names = [row.name for rows in AREAS.values() for row in rows]
    return get_close_matches(name, list(dict.fromkeys(names)), cutoff=0.4)


def names_in(place: Place, measured: Iterable[str] = ()) -> list[str]:
    """The concrete names of the metrics that `place` shows, in the order of the registry.

    Of a family, the parameters that `measured` has or that the row states, ascending; rows of one
    parameter that follow one another take turns, a parameter at a time.
    """
    names = []
    rows = [row for area in AREAS.values() for row in area if place in row.shown]
    for parameter, group in groupby(rows, key=lambda row: row.parameter):
        family = list(group)
        if parameter is None:
            names += [row.base for row in family]
            continue
        values = {v for row in family for v in _parameters(row, place, measured)}
        names += [row.concrete(v) for v in sorted(values, key=_numeric) for row in family]
    return names


def _parameters(row: Metric, place: Place, measured: Iterable[str]) -> list[str]:
    if place in row.shown_for:
        return list(row.shown_for[place])
    return [value for name in measured if (value := row.parameter_of(name)) and find(name) is row]


def _numeric(parameter: str) -> tuple[int, str]:
    return int(parameter) if parameter.isascii() and parameter.isdigit() else 0, parameter
