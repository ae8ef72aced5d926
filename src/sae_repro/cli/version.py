"""The option `--version`: versions for reports of faults, and the commit of a checkout."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

DECIDING = ("torch", "transformers", "transformer-lens", "numpy", "dvc", "mlflow", "optuna")


def _show(wanted: bool) -> None:
    if wanted:
        typer.echo("\n".join(version_lines()))
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show,
            is_eager=True,
            help="Show versions of sae-repro, Python and torch, and the commit of a checkout.",
        ),
    ] = False,
) -> None:
    """Options of `sae-repro` itself; what is asked is answered in their callbacks."""


def version_lines() -> Iterator[str]:
    """One line per fact; the packages are not imported."""
    from sae_repro import __version__
    from sae_repro.installation import SOURCE
    from sae_repro.provenance import git_state

    yield f"sae-repro {__version__}"
    if (SOURCE.parent / "pyproject.toml").is_file() and (git := git_state(SOURCE.parent)):
        changed = " with uncommitted changes" if git["git_dirty"] == "true" else ""
        yield f"commit {git['git_commit']}{changed}"
    yield f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    for package in DECIDING:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} not installed"
