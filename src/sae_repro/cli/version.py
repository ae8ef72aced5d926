"""What `sae-repro --version` prints, for reports of faults: versions, and the checkout's commit."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from sae_repro import __version__
from sae_repro.installation import SOURCE
from sae_repro.provenance import git_state

DECIDING = ("torch", "transformers", "transformer-lens", "numpy", "dvc", "mlflow", "optuna")


def version_lines() -> Iterator[str]:
    """One line per fact; the packages are not imported."""
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
