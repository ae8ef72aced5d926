"""The concepts judge on several cores: each judges a share of the cells, with a bank of its own.

An endpoint is the slower part of its own judging, and is asked from one process: its limit of
requests counts over all cells.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_repro.files import read_json, write_json
from sae_repro.judge.judging import judge_cells
from sae_repro.params import Cell, Judge, saes_by_name
from sae_repro.pins import PinnedFile
from sae_repro.sidebyside import side_by_side, workers

LEAST = 16  # SAEs that are worth a process's start

Results = dict[str, dict[str, Any]]


def judge_in_shares(
    cells: Mapping[str, Cell],
    settings: Judge,
    seed: int,
    study: Path,
    record: Path,
    spans: PinnedFile | None = None,
) -> Results:
    """As `judge_cells`, which see."""
    shares = shares_of(cells, workers()) if settings.kind == "concepts" else [dict(cells)]
    if len(shares) == 1:
        return judge_cells(cells, settings, seed, study, record, spans)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.json" for number in range(len(shares))]
        jobs = [
            ShareJob(share, settings, seed, study, record, spans, path)
            for share, path in zip(shares, paths, strict=True)
        ]
        pieces = [(job, len(saes_by_name(job.cells))) for job in jobs]
        side_by_side(pieces, what="judge", unit="SAE", kept=False)
        judged = {name: result for path in paths for name, result in read_json(path).items()}
    return {name: judged[name] for name in saes_by_name(cells)}


@dataclass(frozen=True)
class ShareJob:
    """All that judging a share of the cells needs; pickles to a worker."""

    cells: Mapping[str, Cell]
    settings: Judge
    seed: int
    study: Path
    record: Path
    spans: PinnedFile | None
    result: Path
    """The file that gets the results."""

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Judge them."""
        parts = (self.cells, self.settings, self.seed, self.study, self.record, self.spans)
        write_json(self.result, judge_cells(*parts))
        progress(len(saes_by_name(self.cells)))


def shares_of(cells: Mapping[str, Cell], most: int) -> list[dict[str, Cell]]:
    """`cells` in at most `most` shares of like many SAEs, and of no fewer than `LEAST`."""
    number = max(1, min(most, len(saes_by_name(cells)) // LEAST))
    shares: list[dict[str, Cell]] = [{} for _ in range(number)]
    sizes = [0] * number
    for name, cell in cells.items():
        least = sizes.index(min(sizes))
        shares[least][name] = cell
        sizes[least] += len(cell.members())
    return shares
