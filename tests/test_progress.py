"""Lines on work: one per job under any number of workers and on any executor, none on results."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cloudpickle import register_pickle_by_value
from joblib import wrap_non_picklable_objects

from sae_repro import progress, sidebyside
from sae_repro.progress import bar, measured, say_kept
from sae_repro.sidebyside import Work, side_by_side

register_pickle_by_value(sys.modules[__name__])  # workers can't import a test


class Job:
    """A job with a line on itself, but for every fourth; the sixth fails if asked to."""

    def __init__(self, number: int, *, broken: bool = False) -> None:
        self.number, self.broken = number, broken

    def __call__(self, report: Callable[[int], None]) -> str | None:
        report(1)
        if self.broken and self.number == 5:
            raise RuntimeError("broken")
        return None if self.number % 4 == 3 else f"job {self.number}: done"


def pieces(*, broken: bool = False) -> list[tuple[Work, int]]:
    """Ten jobs of one unit, of which eight have a line."""
    return [(wrap_non_picklable_objects(Job(i, broken=broken)), 1) for i in range(10)]


EXPECTED = sorted(f"job {i}: done" for i in range(10) if i % 4 != 3)


def lines(text: str) -> list[str]:
    """The printed lines in order, without their seconds."""
    found = text.splitlines()
    assert all(re.search(r", \d+\.\d s$", line) for line in found)
    return sorted(line.rpartition(", ")[0] for line in found)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_every_job_has_one_line_under_any_number_of_workers(
    jobs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAE_REPRO_JOBS", str(jobs))
    seconds = side_by_side(pieces(), what="test", unit="job")
    assert lines(capsys.readouterr().out) == EXPECTED
    assert len(seconds) == 10
    assert min(seconds) >= 0


def test_workers_on_another_machine_are_heard_in_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sidebyside, "_counter", lambda folder: None)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    side_by_side(pieces(), what="test", unit="job")
    assert lines(capsys.readouterr().out) == EXPECTED


def test_jobs_that_ended_before_another_failed_have_their_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    with pytest.raises(RuntimeError, match="broken"):
        side_by_side(pieces(broken=True), what="test", unit="job")
    assert lines(capsys.readouterr().out) == [line for line in EXPECTED if line < "job 5"]


def test_without_a_terminal_a_bar_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with bar("short", unit="step", total=3) as quick:
        quick.update(3)
    assert capsys.readouterr().err == "", "done before the first line is due"
    monkeypatch.setattr(progress, "EVERY", 1e-9)
    with bar("long", unit="step", total=2_000) as slow:
        slow.update(1_500)
        slow.set_postfix(loss="0.5", refresh=False)
        slow.update(500)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("long: 1,500 of 2,000 steps, ")
    assert first.endswith(" left")
    assert last.startswith("long: 2,000 of 2,000 steps, ")
    assert last.endswith("loss=0.5")


def test_lines_appear_beside_the_bar_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    side_by_side([(Job(0), 1)], what="test", unit="job")
    printed = capsys.readouterr()
    assert lines(printed.out) == ["job 0: done"]
    assert "test ×1: 100%" in printed.err
    assert "\r" in printed.err


def test_metrics_without_a_value_are_left_out() -> None:
    metrics = {"fvu": 0.056439, "l0": 16.0, "dead_fraction_never": None, "kl": 0.1234}
    assert measured(metrics) == "L0 16, FVU 0.0564"
    assert measured(metrics, "fvu", "kl") == "L0 16, FVU 0.0564, kl 0.123"


def test_a_grid_says_how_much_of_it_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    say_kept("train", 0, 12)
    say_kept("train", 3, 12)
    say_kept("train", 12, 12)
    assert capsys.readouterr().out.splitlines() == [
        "train: 12 unchanged of 12 SAEs",
        "train: 3 to make, 9 unchanged of 12 SAEs",
        "train: 12 to make of 12 SAEs",
    ]


def test_progress_is_no_part_of_a_result() -> None:
    from sae_repro.closure import closure

    source = Path(__file__).resolve().parents[1] / "src"
    for module in ("train.makers.trained", "evaluate.evaluation", "subject", "extract"):
        assert "sae_repro.progress" not in closure(source, f"sae_repro.{module}")
