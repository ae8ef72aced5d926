"""Cells that differ only in how many tokens they were trained on."""

import math
from collections import defaultdict
from collections.abc import Sequence

from sae_repro.compare.collect import Result

Lengths = list[dict[str, float]]
"""Groups of cells that differ only in their training tokens: log2 of those, by name."""


def lengths_of(trained: Sequence[Result]) -> Lengths:
    """Trained cells that differ only in their training tokens, of which not all have the same."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for r in trained:
        if r.cell.kind == "trained":
            key = r.hook + r.cell.model_dump_json(exclude={"tokens", "seed", "seeds"})
            groups[key].append(r)
    by_name = [{r.name: math.log2(_tokens(r)) for r in g} for g in groups.values() if len(g) > 1]
    return [group for group in by_name if len(set(group.values())) > 1]


def shorter_of(trained: Sequence[Result], lengths: Lengths) -> dict[str, Result]:
    """Cells with training tokens of their own, fewer than one that has the study's."""
    usual = {r.name for r in trained if r.cell.tokens is None}
    fewer = {
        name
        for group in lengths
        for name, tokens in group.items()
        if any(tokens < group[other] for other in group.keys() & usual)
    }
    return {r.name: r for r in trained if r.name in fewer - usual}


def _tokens(result: Result) -> int:
    return int(result.saes[0].curve["tokens"].iloc[-1])
