"""A cell with several seeds as a whole: mean and standard deviation over them, pooled intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sae_repro.numerics.intervals import student, wilson_over_groups

Measured = Mapping[str, Any]
"""The metrics.json of one SAE."""

RATES = {
    "dead_fraction_never": "latents",
    "dead_fraction_below": "latents",
    "dead_fraction_below_relative": "latents",
    "monosemantic_fraction": "latents",
    "monosemantic_fraction_alive": "latents_alive",
}
"""Shares of latents, and the count that is their denominator."""


def over_seeds(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """The metrics.json of a cell from that of each of its SAEs, by their place (`seed-<n>`).

    `metrics` are means and `sd` standard deviations (n − 1) over the n seeds that finished and have
    the value (`n`). `counts` are those on which all agree, and how many seeds failed. `intervals`,
    for what has one in a seed: Wilson's over the latents of all seeds, widened by the variance
    between seeds, for shares of latents; Student's over the seeds for the rest. `seeds` has what
    was measured of each.
    """
    finished = [one for one in measured.values() if one["status"] == "ok"]
    failed = {place: one["reason"] for place, one in measured.items() if one["status"] != "ok"}
    first = next(iter(measured.values()))
    names = dict.fromkeys(name for one in finished for name in one["metrics"])
    values = {name: _known(finished, name) for name in names}
    bounded = dict.fromkeys(name for one in finished for name in one["intervals"])
    return {
        "key": [one["key"] for one in measured.values()],
        "status": "ok" if finished else "failed",
        **{name: first[name] for name in ("hook", "d_in", "d_sae", "activation")},
        "choices": {name: v for name, v in first["choices"].items() if name not in SEED},
        **({"reason": "; ".join(f"{p}: {why}" for p, why in failed.items())} if failed else {}),
        "metrics": {n: float(np.mean(v)) if v else None for n, v in values.items()},
        "sd": {n: float(np.std(v, ddof=1)) if len(v) > 1 else None for n, v in values.items()},
        "n": {name: len(v) for name, v in values.items()},
        "counts": {**_shared(finished), "seeds": len(measured), "seeds_failed": len(failed)},
        "intervals": {n: _interval(finished, n) for n in bounded if values.get(n)},
        "seeds": {
            place: {part: one[part] for part in ("status", "metrics", "counts", "intervals")}
            for place, one in measured.items()
        },
    }


SEED = ("seed", "seeds")  # what the SAEs of a cell differ in


def _known(finished: list[Measured], name: str) -> list[float]:
    found = [one["metrics"].get(name) for one in finished]
    return [value for value in found if value is not None]


def _shared(finished: list[Measured]) -> dict[str, int]:
    """The counts that every seed has alike: tokens, documents, latents."""
    counts = [one["counts"] for one in finished]
    return {
        name: value
        for name, value in (counts[0] if counts else {}).items()
        if all(other.get(name) == value for other in counts)
    }


def _interval(finished: list[Measured], name: str) -> list[float]:
    known = [one for one in finished if one["metrics"].get(name) is not None]
    if len(known) == 1:
        return list(known[0]["intervals"][name])
    if name in RATES:
        totals = [one["counts"][RATES[name]] for one in known]
        found = [round(one["metrics"][name] * n) for one, n in zip(known, totals, strict=True)]
        return list(wilson_over_groups(found, totals))
    _, low, high = student([one["metrics"][name] for one in known])
    return [low, high]
