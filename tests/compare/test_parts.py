"""The parts of the comparison that workers do side by side."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sae_repro.compare.collect import Result
from sae_repro.compare.parts import write_reports
from sae_repro.errors import StudyError
from sae_repro.files import sha256_folder, write_json
from sae_repro.params import Cell, Compare


@pytest.fixture
def results(write: Callable[..., Result], tmp_path: Path) -> list[Result]:
    """Two controls and a cell that failed, none of them judged, and no world tried."""
    for part in ("control", "judge"):
        (tmp_path / "artifacts" / part).mkdir(parents=True)
    write_json(tmp_path / "artifacts/control/heat.json", {})
    (tmp_path / "artifacts/control/trials.csv").write_text("")
    for name in "abc":
        write_json(tmp_path / "artifacts/judge" / f"{name}.json", {"reason": "nothing to judge"})
    vanilla = Cell(expansion=4, penalty="l1", **{"lambda": 1e-2})
    return [
        write("a", Cell(expansion=8, baseline="untrained", activation="topk", k=8), l0=8.0),
        write("b", Cell(expansion=8, baseline="untrained", activation="topk", k=16), l0=16.0),
        write("c", vanilla, status="failed"),
    ]


def reports_of(results: list[Result], artifacts: Path, reports: Path) -> Path:
    settings = Compare(matched_l0=(8.0,), bootstrap=100)
    write_reports(results, settings, 0, {}, artifacts, reports, {})
    return reports


def test_workers_write_what_one_process_does(
    results: list[Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for jobs in "12":
        monkeypatch.setenv("SAE_REPRO_JOBS", jobs)
        written.append(reports_of(results, tmp_path / "artifacts", tmp_path / jobs))
    assert sha256_folder(written[0]) == sha256_folder(written[1])
    assert (written[0] / "figures/density.png").is_file()
    assert (written[0] / "tables/cells.md").is_file()


def test_a_part_that_fails_leaves_the_figures_there_were(
    results: list[Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    reports = reports_of(results, tmp_path / "artifacts", tmp_path / "reports")
    before = sha256_folder(reports / "figures")
    (tmp_path / "artifacts/control/heat.json").write_text("{")
    with pytest.raises(StudyError, match=r"heat\.json"):
        reports_of(results, tmp_path / "artifacts", reports)
    assert sha256_folder(reports / "figures") == before
    assert [path.name for path in reports.iterdir() if path.name.startswith(".")] == []
