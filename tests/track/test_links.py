"""The links between a run, its inputs and its commit, in both directions."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from sae_repro.errors import StudyError
from sae_repro.track import send
from sae_repro.track.history import of_commit
from sae_repro.track.mlflow_sync import Sent
from sae_repro.track.projection import flat, projection

from .conftest import cells_named, write_cell

CELLS = ("a", "b", "bad")
LOCK = """\
schema: '2.0'
stages:
  train:
    deps:
    - {path: ../../code/train.txt, md5: '1111'}
    - {path: artifacts/extract/contents.json, md5: 'EXTRACT'}
    outs:
    - {path: artifacts/train, md5: 3333.dir}
  evaluate:
    deps:
    - {path: artifacts/corpus/contents.json, md5: '44444444444444444444444444444444'}
    - {path: artifacts/train/contents.json, md5: '7777'}
    outs:
    - {path: artifacts/evaluate, md5: 5555.dir}
"""
EXTRACT = "2" * 32


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    folder = make_study(tmp_path / "study")
    (folder / "dvc.lock").write_text(LOCK.replace("EXTRACT", EXTRACT))
    return folder


def sync(study: Path, cells: tuple[str, ...] = CELLS) -> Sent:
    from sae_repro.params import Track

    return send(study, study, cells_named(cells), Track(experiment="test"))


def runs(study: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    found = client.get_experiment_by_name("test")
    return list(client.search_runs([found.experiment_id]))


def named(study: Path, name: str) -> Run:
    [run] = [run for run in runs(study) if run.info.run_name == name]
    return run


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_run_has_what_it_was_made_from(study: Path) -> None:
    sync(study)
    run = named(study, "a")
    assert run.data.tags["sae_repro.dvc.in.artifacts.extract.contents.json"] == EXTRACT
    assert run.data.tags["sae_repro.dvc.in.code.train.txt"] == "1111"
    assert run.data.tags["sae_repro.dvc.out.artifacts.evaluate"] == "5555.dir"
    output = {
        (i.dataset.name, i.dataset.digest, i.dataset.source_type, i.tags[0].value)
        for i in run.inputs.dataset_inputs
    }
    assert output == {
        ("root/artifacts/extract", EXTRACT, "dvc", "training"),
        ("root/artifacts/corpus", "4" * 32, "dvc", "evaluation"),
    }
    assert run.data.tags["sae_repro.version.torch"]
    assert run.data.tags["sae_repro.host"]


def test_without_a_lock_a_run_names_no_inputs(study: Path) -> None:
    (study / "dvc.lock").unlink()
    sync(study)
    run = named(study, "a")
    assert run.inputs.dataset_inputs == []
    assert not [tag for tag in run.data.tags if tag.startswith("sae_repro.dvc")]


def test_denominators_and_intervals_stand_beside_the_values(study: Path) -> None:
    sync(study)
    metrics = named(study, "a").data.metrics
    assert metrics["fvu"] == 0.5
    assert metrics["count/tokens"] == 4000
    assert (metrics["interval/fvu_low"], metrics["interval/fvu_high"]) == (0.4, 0.6)
    assert not any(name.startswith(("count/", "interval/")) for name in
                   named(study, "bad").data.metrics)  # fmt: skip


def test_the_types_of_parameters_can_be_read_back() -> None:
    values = {"a": {"b": True, "c": [0.5, 1], "d": None}, "e": 1e-10, "f": 3, "g": "topk", "h": 2.0}
    output = dict(flat(values))
    assert output.pop("g") == "topk"
    assert {name: json.loads(value) for name, value in output.items()} == {
        "a.b": True, "a.c": [0.5, 1], "e": 1e-10, "f": 3, "h": 2.0,
    }  # fmt: skip
    assert isinstance(json.loads(output["h"]), float)


def test_a_run_links_to_its_commit_without_the_origins_password(study: Path) -> None:
    git(study, "init", "-q")
    git(study, "add", "dvc.lock")
    git(study, "commit", "-qm", "results")
    git(study, "remote", "add", "origin", "https://me:hunter2@host.org/them/sae.git")
    commit = git(study, "rev-parse", "HEAD")
    sync(study)
    tags = named(study, "a").data.tags
    assert tags["mlflow.source.git.commit"] == tags["sae_repro.git_commit"] == commit
    assert f"(https://host.org/them/sae/commit/{commit})" in tags["mlflow.note.content"]
    assert "hunter2" not in json.dumps(tags)
    # the command that the note gives
    assert "git log -S 3333.dir -- dvc.lock" in tags["mlflow.note.content"]
    assert git(study, "log", "-S", "3333.dir", "--format=%H", "--", "dvc.lock") == commit


def test_new_hashes_of_the_same_result_are_sent_and_an_edited_note_stays(study: Path) -> None:
    sync(study)
    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    client.set_tag(named(study, "a").info.run_id, "mlflow.note.content", "look at latent 7")
    assert sync(study) == Sent(runs_unchanged=4)
    assert named(study, "a").data.tags["mlflow.note.content"] == "look at latent 7"
    path = study / "dvc.lock"
    path.write_text(path.read_text().replace("5555.dir", "6666.dir"))
    assert sync(study) == Sent(runs_unchanged=4)
    tags = named(study, "a").data.tags
    assert tags["sae_repro.dvc.out.artifacts.evaluate"] == "6666.dir"
    assert "6666.dir" in tags["mlflow.note.content"]


def test_a_superseded_run_says_so_in_its_name_until_it_is_current_again(study: Path) -> None:
    sync(study)
    write_cell(study, "a", key="99999999")
    sync(study)
    assert {run.info.run_name for run in runs(study)} == {
        "a", "a (superseded, 00000000)", "b", "bad", "report",
    }  # fmt: skip
    assert named(study, "a").data.tags["sae_repro.key"] == "99999999"
    write_cell(study, "a", key="00000000")
    sync(study)
    assert named(study, "a").data.tags["sae_repro.key"] == "00000000"
    assert named(study, "a (superseded, 99999999)").info.status == "FINISHED"


def test_the_runs_of_a_removed_cell_are_superseded(study: Path) -> None:
    sync(study)
    sync(study, ("a", "bad"))
    old = named(study, "b (superseded, 11111111)")
    assert old.data.tags["sae_repro.superseded"] == "true"
    assert named(study, "a").data.tags["sae_repro.superseded"] == "false"


def test_a_study_below_the_root_has_runs_of_its_own(study: Path) -> None:
    sync(study)
    other = study / "news"
    for part in ("artifacts", "reports"):
        shutil.copytree(study / part, other / part)
    (other / "params.yaml").write_text("root: ..")
    from sae_repro.params import Track

    sent = send(other, study, cells_named(CELLS), Track(experiment="test"))
    assert sent.runs_created == 4
    assert named(study, "news/a").data.tags["sae_repro.study"] == "news"
    assert named(study, "a").data.tags["sae_repro.superseded"] == "false"


@pytest.mark.slow
def test_the_runs_that_a_commit_recorded(study: Path) -> None:
    (study / "dvc.lock").unlink()
    (study / "dvc.yaml").write_text(
        "stages:\n  track:\n    cmd: 'true'\n    outs: [artifacts/track]\n"
    )
    (study / ".gitignore").write_text("/artifacts/\n/mlflow.db\n/mlartifacts/\n")
    git(study, "init", "-q")
    subprocess.run(["dvc", "init", "-q"], cwd=study, check=True)
    commits = {}
    for key in ("00000000", "99999999"):
        write_cell(study, "a", key=key)
        entries = projection(cells_named(CELLS), study, weights=True)
        (study / "artifacts/track").mkdir(exist_ok=True)
        (study / "artifacts/track/runs.jsonl").write_text(
            "".join(json.dumps(entry) + "\n" for entry in entries)
        )
        subprocess.run(["dvc", "commit", "-q", "-f"], cwd=study, check=True)
        git(study, "add", "-A")
        git(study, "commit", "-qm", key)
        commits[key] = git(study, "rev-parse", "HEAD")
        sync(study)
    for key, commit in commits.items():
        listed = dict(of_commit(study, study, "test", commit))
        assert list(listed) == ["a", "b", "bad", "report"]
        [run] = [run for run in runs(study) if run.info.run_id == listed["a"]]
        assert run.data.tags["sae_repro.key"] == key
    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    client.delete_run(named(study, "b").info.run_id)
    assert dict(of_commit(study, study, "test", "HEAD~1"))["b"] == ""
    with pytest.raises(StudyError, match=r"commit 0{40}: its artifacts/track can't be read"):
        of_commit(study, study, "test", "0" * 40)
