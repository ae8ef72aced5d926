"""The 95 % interval of a metric's mean over seeds, inside the range of its unit."""

import math
from collections.abc import Sequence

from sae_repro.metrics.metric import BOUNDS, FRACTION, Metric
from sae_repro.numerics.intervals import student, student_fraction


def mean_over_seeds(metric: Metric | None, values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of independent seeds' values; NaN bounds of fewer than 2.

    Student's t; for fractions of their angles (`student_fraction`); for other units with a range,
    such as cosines, the part of Student's interval that lies in it. `metric` is None for a name
    without a row.
    """
    if metric is not None and metric.unit == FRACTION:
        return student_fraction(values)
    mean, low, high = student(values)
    if metric is None or metric.unit not in BOUNDS or math.isnan(low):
        return mean, low, high
    least, most = BOUNDS[metric.unit]
    return mean, max(low, least), min(high, most)
