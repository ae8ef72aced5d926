"""The origin of a number: cell, key, artifact, and how its commit and its MLflow run are found.

Neither is named on the page itself: a page in git that named its own commit would never be
unchanged, and a run's id is its server's to give. Both are found by the keys.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sae_repro.contents import CONTENTS
from sae_repro.files import read_json
from sae_repro.params import Cell

SHOWN = 12  # digits of a hash


@dataclass(frozen=True)
class Origin:
    """Where a cell's numbers come from."""

    cell: str
    keys: tuple[str, ...]
    """Per seed, the hash of all that decides its evaluation: choices, code, data, versions."""
    trained: tuple[str, ...]
    """Per seed, the hash of all that decides its training, by which MLflow's runs are tagged."""
    artifact: str
    """Checksum of artifacts/evaluate/<cell>, as in its contents.json."""


def origins(cells: Mapping[str, Cell], artifacts: Path) -> dict[str, Origin]:
    """The origin of each cell."""
    return {name: _origin(name, cell, artifacts) for name, cell in cells.items()}


def _origin(name: str, cell: Cell, artifacts: Path) -> Origin:
    evaluated, trained = artifacts / "evaluate" / name, artifacts / "train" / name
    key = read_json(evaluated / "metrics.json")["key"]
    return Origin(
        name,
        tuple(one[:SHOWN] for one in (key if isinstance(key, list) else [key])),
        tuple(read_json(trained / place / "train.json")["key"][:SHOWN] for place in cell.members()),
        read_json(evaluated / CONTENTS)["sha256"][:SHOWN],
    )


def for_page(known: Mapping[str, Origin]) -> dict[str, Any]:
    """The origins by cell, as data of the page's script."""
    return {name: asdict(origin) for name, origin in known.items()}
