"""The values with which a study begins: the recipe's own, or the middle of a range."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sae_repro.errors import shown
from sae_repro.params.tune import Range, Values

Searched = Mapping[str, Mapping[str, Range | Values]]
"""By recipe, then by the choice of a cell."""


def started(
    defaults: Mapping[str, Mapping[str, Any]], searched: Searched
) -> dict[str, dict[str, Any]]:
    """The values of the recipes that are searched, and a start where a recipe leaves one out.

    lr, which then follows from the width of the activations, and λ, which cells may state one by
    one, have no value of the recipe's.
    """
    return {
        recipe: {
            key: _middle(choices[key]) if value is None and key in choices else value
            for key, value in defaults[recipe].items()
        }
        for recipe, choices in searched.items()
    }


def _middle(choice: Range | Values) -> Any:
    if isinstance(choice, Values):
        return choice.values[0]
    low, high = choice.low, choice.high
    middle = math.sqrt(low * high) if choice.log else (low + high) / 2
    return round(middle) if choice.whole else float(f"{middle:.3g}")


def outside(defaults: Mapping[str, Mapping[str, Any]], searched: Searched) -> Iterator[str]:
    """A line for each searched choice whose value in params.yaml no trial could have."""
    for recipe, choices in searched.items():
        for key, choice in choices.items():
            value = defaults[recipe][key]
            if isinstance(choice, Values):
                fits, allowed = value in choice.values, ", ".join(map(str, choice.values))
            else:
                fits = isinstance(value, int | float) and choice.low <= value <= choice.high
                allowed = f"{choice.low:g} … {choice.high:g}"
            if not fits:
                yield (
                    f"tune.recipes.{recipe}.{key}: searched in {allowed}, but the recipe has "
                    f"{shown(value)}, with which each study begins; widen the range, or change the "
                    "recipe"
                )
