"""Lines that commands print."""

import inspect
from collections.abc import Callable

import typer

from sae_repro.errors import printable


def echo(text: str) -> None:
    """Print `text`: whatever names and values of files it holds, no terminal obeys them."""
    typer.echo("\t".join(map(printable, text.split("\t"))))  # a tab separates columns


def help_of(command: Callable[..., None]) -> str:
    """A command's docstring as its help: examples keep their lines, to be copied from there.

    Each example is a paragraph of one line behind that which says "Examples:".
    """
    text = inspect.getdoc(command) or ""
    words, _, examples = text.partition("\n\nExamples:\n\n")
    if not examples:
        return text
    # click wraps no paragraph that begins with \\b
    lines = [f"  {line}" for line in examples.split("\n\n")]
    return "\n".join([words, "", "\b", "Examples:", *lines])
