"""Lines that commands print."""

import typer

from sae_repro.errors import printable


def echo(text: str) -> None:
    """Print `text`: whatever names and values of files it holds, no terminal obeys them."""
    typer.echo("\t".join(map(printable, text.split("\t"))))  # a tab separates columns
