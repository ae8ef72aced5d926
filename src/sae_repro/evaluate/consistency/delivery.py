"""Results of the passes over seeds, put beside the evaluations that they compare.

artifacts/evaluate/<cell>/consistency/ has the job's folder; metrics.json of the cell its metrics,
and latents.parquet of each seed the column `stability`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sae_repro.cellstore import CellStore, bypassed, copied, finished
from sae_repro.contents import seal
from sae_repro.evaluate.consistency.job import SUMMARY, ConsistencyJob
from sae_repro.files import read_json, replacing_folder
from sae_repro.progress import say
from sae_repro.sidebyside import side_by_side

FOLDER = "consistency"
COLUMN = "stability"


def deliver(out: Path, jobs: Mapping[str, ConsistencyJob], store: CellStore) -> None:
    """Bring `out`/<cell>/consistency of each cell in `jobs` up to date: what is finished stays."""
    changed = {
        name: job
        for name, job in jobs.items()
        if not finished(out / name / FOLDER, job.key, SUMMARY)
    }
    if not bypassed():
        missing = {job.key: job for job in changed.values() if store.find(job.key) is None}
        if missing:
            say(f"evaluate: seeds to compare in {len(missing)} of {len(jobs)} cells")
            pieces = [(job, 1) for job in missing.values()]
            side_by_side(pieces, what="evaluate", unit="cell")
    for name, job in changed.items():
        with replacing_folder(out / name / FOLDER) as folder:
            if bypassed():
                job.make(folder)
                seal(folder)
            else:
                copied(job.key, store, out / name / FOLDER, folder)


def with_consistency(whole: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The metrics.json of the cell in `folder` with the metrics of its consistency, if it has any.

    A pair belongs to two seeds, so that these metrics have neither a value per seed nor a standard
    deviation. The column `stability` of its seeds follows, too.
    """
    found = folder / FOLDER / SUMMARY
    if not found.is_file():
        for place in whole["seeds"]:
            _write_stability(folder / place, None)
        return whole
    import pandas as pd

    stability = pd.read_parquet(folder / FOLDER / "stability.parquet")
    for place in whole["seeds"]:
        _write_stability(folder / place, stability[stability["place"] == place])
    summary = read_json(found)
    seeds = summary["counts"]["consistency_seeds"]
    return {
        **whole,
        **{part: whole[part] | summary[part] for part in ("metrics", "counts", "intervals")},
        "n": whole["n"] | {n: seeds for n, v in summary["metrics"].items() if v is not None},
    }


def _write_stability(folder: Path, stability: Any) -> None:
    """Give latents.parquet of the SAE in `folder` the column; NaN for its dead latents."""
    import pandas as pd

    path = folder / "latents.parquet"
    if not path.is_file():  # a failed seed
        return
    frame = pd.read_parquet(path)
    new = frame.drop(columns=COLUMN, errors="ignore")
    if stability is not None:
        values = np.full(len(frame), np.nan)
        values[stability["latent"].to_numpy(np.int64)] = stability[COLUMN].to_numpy(np.float64)
        new[COLUMN] = values
    if not new.equals(frame):
        new.to_parquet(path, index=False, compression="zstd")
        seal(folder)
