"""Words that the lines about a folder have in common."""

from typing import Any

AGAIN = "save the model again with `save_pretrained`"


def count(things: Any, noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def some(names: Any) -> str:
    """The first three names."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (", …" if len(ordered) > 3 else "")
