"""The metrics of one SAE that `evaluate.metrics` chooses among, and the rows that each needs."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.metrics import (
    ablation,
    dictionary,
    monosemanticity,
    ngram,
    references,
    steering,
    structure,
)
from sae_repro.evaluate.summary import Summary
from sae_repro.params.joint import is_joint


class Measure(NamedTuple):
    """One choice of `evaluate.metrics`."""

    measure: Callable[[FirstPass], Summary]
    """Writes tables of its own into the cell's folder and returns its entries of metrics.json."""
    by_token: bool = True
    """Whether its rows must be tokens: whole documents carry neither concepts nor words."""
    by_class: bool = False
    """Whether it is measured of given rows too where documents have classes: its concepts."""
    of_several: bool = True
    """Whether it is measured of a crosscoder too: its atoms are directions at no one hook."""


MEASURES = {
    "monosemanticity": Measure(monosemanticity.measure, by_class=True),
    "structure": Measure(structure.measure, by_class=True),
    "dictionary": Measure(dictionary.measure, by_token=False),
    "references": Measure(references.measure, of_several=False),
    "ngram": Measure(ngram.measure, of_several=False),
    "ablation": Measure(ablation.measure, of_several=False),
    "steering": Measure(steering.measure, of_several=False),
}


def by_token(metrics: Iterable[str], *, classes: bool) -> list[str]:
    """Those of `metrics` that need rows that are tokens; given `classes` stand in for some."""
    rows = ((name, MEASURES[name]) for name in metrics if name in MEASURES)
    return [name for name, row in rows if row.by_token and not (row.by_class and classes)]


def at_one_hook(metrics: Iterable[str]) -> list[str]:
    """Those of `metrics` that need latents of one hook."""
    return [name for name in metrics if name in MEASURES and not MEASURES[name].of_several]


def chosen_metrics(first_pass: FirstPass, metrics: Iterable[str]) -> Summary:
    """The summary of all chosen `metrics`; one that makes no sense for the rows is left out."""
    tokens = first_pass.store.manifest["pooling"] == "token"
    metrics = list(metrics)
    unfit = [] if tokens else by_token(metrics, classes=first_pass.classes)
    several = is_joint(first_pass.hook)
    total = Summary({}, {}, {})
    for name in metrics:
        row = MEASURES.get(name)  # none for what is measured between SAEs
        if row and name not in unfit and (row.of_several or not several):
            total |= row.measure(first_pass)
    return total
