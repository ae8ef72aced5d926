"""The origin of a number, for its title: cell, key, artifact, table.

No commit is among them: a page in git that named its own commit would never be unchanged.
"""

from dataclasses import dataclass
from pathlib import Path

from sae_repro.contents import CONTENTS
from sae_repro.files import read_json

SHOWN = 12  # digits of a hash


@dataclass(frozen=True)
class Origin:
    """Where a cell's numbers come from."""

    cell: str
    key: str
    """Hash of all that decides its evaluation: choices, code, data, versions; one per seed."""
    artifact: str
    """Checksum of artifacts/evaluate/<cell>, as in its contents.json."""

    def __str__(self) -> str:
        return f"cell {self.cell}, key {self.key}, artifacts/evaluate/{self.cell} {self.artifact}"


def origins(cells: list[str], artifacts: Path) -> dict[str, Origin]:
    """The origin of each cell."""
    found = {}
    for cell in cells:
        folder = artifacts / "evaluate" / cell
        key = read_json(folder / "metrics.json")["key"]
        keys = key if isinstance(key, list) else [key]
        checksum = read_json(folder / CONTENTS)["sha256"]
        found[cell] = Origin(cell, " ".join(one[:SHOWN] for one in keys), checksum[:SHOWN])
    return found
