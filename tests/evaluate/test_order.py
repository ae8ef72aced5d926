"""The order in which SAEs are handed to workers."""

from pathlib import Path

from sae_repro.evaluate import _in_order
from sae_repro.evaluate.job import EvaluateJob
from sae_repro.files import write_json


def test_jobs_go_hook_by_hook_and_end_with_the_shortest(tmp_path: Path) -> None:
    cells = {
        "narrow": ("most", 64),
        "other": ("few", 512),
        "wide": ("most", 2048),
        "another": ("alike few", 512),
        "middle": ("most", 512),
        "also middle": ("most", 512),
    }
    for name, (hook, d_sae) in cells.items():
        write_json(tmp_path / name / "train.json", {"hook": hook, "d_sae": d_sae})
    study: object = None  # a job's place in the order does not depend on it
    jobs = [EvaluateJob(name, study, tmp_path / name, name) for name in cells]  # type: ignore[arg-type]
    order = [job.name for job in _in_order(jobs)]
    assert order == ["another", "other", "wide", "middle", "also middle", "narrow"]
