"""A cell with several seeds as a whole: mean and standard deviation over them, pooled intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_repro.metrics import find, mean_over_seeds
from sae_repro.metrics.metric import FRACTION
from sae_repro.numerics.intervals import wilson_over_groups

Measured = Mapping[str, Any]
"""The metrics.json of one SAE."""


def over_seeds(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """The metrics.json of a cell from that of each of its SAEs, by their place (`seed-<n>`).

    `metrics` are means and `sd` standard deviations (n − 1) over the n seeds that finished and have
    the value (`n`). `counts` are those on which all agree, and how many seeds failed. `intervals`,
    for what has one in a seed: Wilson's over the latents of all seeds, widened by the variance
    between seeds, for fractions of latents; for the rest Student's over the seeds, inside the range
    of the metric's unit, and for fractions of n things at least 1/(2n) to either side: seeds that
    agree exactly may differ by less than one of them. `seeds` has what was measured of each.
    """
    finished = [one for one in measured.values() if one["status"] == "ok"]
    failed = {place: one["reason"] for place, one in measured.items() if one["status"] != "ok"}
    first = next(iter(measured.values()))
    names = dict.fromkeys(name for one in finished for name in one["metrics"])
    values = {name: _measured_values(finished, name) for name in names}
    bounded = dict.fromkeys(name for one in finished for name in one["intervals"])
    return {
        "key": [one["key"] for one in measured.values()],
        "status": "ok" if finished else "failed",
        **{name: first[name] for name in ("hook", "d_in", "d_sae", "activation", "unreached")},
        "input_offset": next((one.get("input_offset") for one in finished), None),
        **{name: first[name] for name in ("not_measured",) if name in first},
        "choices": {name: v for name, v in first["choices"].items() if name not in SEED},
        **(
            {"reason": "; ".join(f"{p}: {reason}" for p, reason in failed.items())}
            if failed
            else {}
        ),
        "metrics": {n: float(np.mean(v)) if v else None for n, v in values.items()},
        "sd": {n: _sd(v) if len(v) > 1 else None for n, v in values.items()},
        "n": {name: len(v) for name, v in values.items()},
        "counts": {**_shared(finished), "seeds": len(measured), "seeds_failed": len(failed)},
        "intervals": {
            n: bounds for n in bounded if values.get(n) and (bounds := _interval(finished, n))
        },
        "seeds": {
            place: {part: one[part] for part in ("status", "metrics", "counts", "intervals")}
            for place, one in measured.items()
        },
    }


SEED = ("seed", "seeds")  # what the SAEs of a cell differ in


ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Of values: what their sums in another order may differ by."""


def _sd(values: Sequence[float]) -> float:
    """The sample's standard deviation; 0 of values that differ by their rounding alone.

    Their mean is rounded too, so that of equal ones it would be 1e-17 or so.
    """
    if max(values) - min(values) <= ROUNDING * max(map(abs, values)):
        return 0.0
    return float(np.std(values, ddof=1))


def _measured_values(finished: list[Measured], name: str) -> list[float]:
    values = [one["metrics"].get(name) for one in finished]
    return [value for value in values if value is not None]


def _shared(finished: list[Measured]) -> dict[str, int]:
    """The counts that every seed has alike: tokens, documents, latents."""
    counts = [one["counts"] for one in finished]
    return {
        name: value
        for name, value in (counts[0] if counts else {}).items()
        if all(other.get(name) == value for other in counts)
    }


def _interval(finished: list[Measured], name: str) -> list[float] | None:
    measured = [one for one in finished if one["metrics"].get(name) is not None]
    if len(measured) == 1:
        return _own_interval(measured[0], name)
    values = [one["metrics"][name] for one in measured]
    metric = find(name)
    count = metric and metric.denominator_of(name)
    totals = [one["counts"].get(count, 0) for one in measured] if count else []
    if metric is not None and metric.interval == "Wilson over latents":
        successes = [round(value * n) for value, n in zip(values, totals, strict=True)]
        return list(wilson_over_groups(successes, totals))
    mean, low, high = mean_over_seeds(metric, values)
    if metric is not None and metric.unit == FRACTION and totals and all(totals):
        half = float(np.mean([1 / (2 * n) for n in totals]))
        low, high = min(low, max(0.0, mean - half)), max(high, min(1.0, mean + half))
    return [low, high]


def _own_interval(one: Measured, name: str) -> list[float] | None:
    interval = one["intervals"].get(name)
    return None if interval is None else list(interval)
