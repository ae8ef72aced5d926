"""Verbs of DVC that need results, in a clone that has them: experiments, remotes, records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_repro.cli.pipelines import seen_from

Run = Callable[..., Any]
Copied = Callable[[Path], Path]


def ran(output: str) -> list[str]:
    """The stages that a run executed."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_everything_is_up_to_date_and_committed(
    finished_clone: Path, copied: Copied, run: Run
) -> None:
    folder = copied(finished_clone)
    assert ran(run("dvc", "repro", cwd=folder).stdout) == []
    assert run("git", "status", "--short", cwd=folder).stdout == ""
    run("dvc", "checkout", cwd=folder)
    assert len(run("dvc", "metrics", "show", "--md", cwd=folder).stdout.splitlines()) >= 4


def test_reports_lose_the_files_of_cells_that_are_gone(finished_clone: Path) -> None:
    names = {path.stem for path in (finished_clone / "reports/metrics").iterdir()}
    assert names == {"vanilla", "topk"}


@pytest.mark.slow
def test_an_experiment_changes_one_value_and_is_applied(
    finished_clone: Path, copied: Copied, run: Run
) -> None:
    folder = copied(finished_clone)
    before = (folder / "params.yaml").read_text().splitlines()
    done = run("dvc", "exp", "run", "-n", "more", "-S", "compare.bootstrap=200", cwd=folder)
    assert ran(done.stdout) == ["compare", "report", "track"]
    table = json.loads(run("dvc", "exp", "show", "--json", cwd=folder).stdout)
    shown = [e["name"] for row in table if row["experiments"] for e in row["experiments"]]
    assert shown == ["more"]
    run("git", "checkout", "-q", ".", cwd=folder)
    assert (folder / "params.yaml").read_text().splitlines() == before
    run("dvc", "exp", "apply", "more", cwd=folder)
    run("dvc", "exp", "diff", cwd=folder)
    diff = json.loads(run("dvc", "params", "diff", "--json", cwd=folder).stdout)
    assert list(diff["params.yaml"]) == ["compare.bootstrap"]
    assert ran(run("dvc", "repro", cwd=folder).stdout) == []


@pytest.mark.slow
def test_queued_experiments_run_in_folders_of_their_own(
    finished_clone: Path, copied: Copied, run: Run
) -> None:
    folder = copied(finished_clone)
    run("dvc", "exp", "run", "--queue", "-n", "more", "-S", "compare.bootstrap=200", cwd=folder)
    run("dvc", "exp", "run", "--run-all", cwd=folder)
    names = run("dvc", "exp", "list", "--name-only", cwd=folder).stdout.split()
    assert names == ["more"]
    assert run("git", "status", "--short", cwd=folder).stdout == ""
    assert "Success" in run("dvc", "queue", "status", cwd=folder).stdout


def test_a_workspace_is_saved_as_an_experiment(
    finished_clone: Path, copied: Copied, run: Run
) -> None:
    folder = copied(finished_clone)
    run("dvc", "exp", "save", "-n", "kept", cwd=folder)
    assert run("dvc", "exp", "list", "--name-only", cwd=folder).stdout.split() == ["kept"]


def test_a_commit_names_its_runs(finished_clone: Path, run: Run) -> None:
    done = run("sae-repro", "track", "--commit", "HEAD", cwd=finished_clone)
    names = {line.split("\t")[1]: line.split("\t")[0] for line in done.stdout.splitlines()}
    assert set(names) == {"vanilla", "topk", "report"}
    assert "not sent" not in names.values()


def test_push_clone_pull_and_nothing_is_computed(
    finished_clone: Path, copied: Copied, run: Run, tmp_path: Path
) -> None:
    """As docs/reproduction.md tells it, with a folder for a remote."""
    folder = copied(finished_clone)
    run("dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"), cwd=folder)
    run("git", "commit", "-qam", "Set the remote of results", cwd=folder)
    run("dvc", "push", cwd=folder)
    other = tmp_path / "other"
    run("git", "clone", "-q", str(folder), str(other), cwd=tmp_path)
    run("dvc", "pull", cwd=other)
    assert ran(run("dvc", "repro", cwd=other).stdout) == []
    verdict = run("sae-repro", "verify", str(folder), cwd=other).stdout
    assert verdict.startswith("identical to ")
    assert run("sae-repro", "verify", cwd=other).stdout.startswith(
        "identical to the recorded study"
    )
    run("dvc", "checkout", cwd=other)
    done = run("dvc", "repro", "--all-pipelines", "--dry", cwd=other)
    assert ran(done.stdout) == ["tune/dvc.yaml:tune"]  # the recorded search is of another study
    assert run("git", "status", "--short", cwd=other).stdout == ""


@pytest.mark.slow
def test_a_study_that_was_not_run_does_not_keep_the_others_from_being_pulled(
    finished_clone: Path, copied: Copied, run: Run, tmp_path: Path
) -> None:
    """DVC counts it among what is missing; docs/reproduction.md says how to pull the others."""
    folder = copied(finished_clone)
    run("dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"), cwd=folder)
    study = folder / "studies" / "later"
    study.mkdir()
    (study / "dvc.yaml").write_text(seen_from("../..", (folder / "dvc.yaml").read_text()))
    params = (folder / "params.yaml").read_text().replace("text.jsonl", "../../text.jsonl")
    (study / "params.yaml").write_text(params.replace("root: .", "root: ../.."))
    run("sae-repro", "check", "studies/later", cwd=folder)
    assert "studies/later" in run("dvc", "pull", cwd=folder, code=1).stderr
    run("dvc", "pull", "dvc.yaml", cwd=folder)
    run("dvc", "metrics", "diff", "HEAD~1", cwd=folder)
