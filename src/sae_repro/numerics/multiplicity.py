"""p-values of several comparisons at once.

Source: S. Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
Journal of Statistics 6.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

LEVEL = 0.05


def holm(p: Mapping[Key, float]) -> dict[Key, float]:
    """Each p-value adjusted for how many there are; those that are NaN are no comparisons."""
    tested = sorted((key for key in p if p[key] == p[key]), key=lambda key: p[key])
    adjusted, largest = dict(p), 0.0
    for n, key in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - n) * p[key]))
        adjusted[key] = largest
    return adjusted
