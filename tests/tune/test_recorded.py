"""The recorded study as an Optuna journal of its own, with all that trials.csv has."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from ruamel.yaml import YAML

from sae_repro.errors import StudyError
from sae_repro.params import Tune
from sae_repro.tune import JOURNAL
from sae_repro.tune.dashboard import INSTALL, journal_to_show, show
from sae_repro.tune.recorded import Recorded
from sae_repro.tune.records import RECORD, record_of
from sae_repro.tune.results import trials
from sae_repro.tune.space import read_params, suggest

from .conftest import SPACE, TinyStudy

SPACES: dict[str, dict[str, Any]] = {
    "front": {"trials": 6, "constraints": {"dead_fraction_never": 0.2}},
    "weighted": {"trials": 6, "weights": {"l0": 0.1, "fvu": 1.0}},
    "maximized": {"trials": 6, "objectives": {"cosine": "maximize"}},
    # enough trials that some surely stop
    "pruned": {"trials": 20, "objectives": {"fvu": "minimize"}, "pruner": {"min_steps": 16,
                                                            "reduction_factor": 2}},
}  # fmt: skip


def load(path: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(path))))


def content(trial: FrozenTrial) -> dict[str, Any]:
    """All of a trial but its times and what samplers and pruners noted for themselves."""
    shown = {name: value for name, value in trial.user_attrs.items() if name != "seconds"}
    return {
        "number": trial.number,
        "state": trial.state,
        "values": trial.values,
        "params": trial.params,
        "types": [type(value) for value in trial.params.values()],
        "distributions": trial.distributions,
        "constraints": trial.constraints,
        "reports": trial.intermediate_values,
        "shown": shown,
        "record": record_of(trial),
    }


@pytest.mark.parametrize("space", SPACES)
def test_the_rebuilt_trials_are_those_of_the_search(study: TinyStudy, space: str) -> None:
    study.space(**SPACES[space])
    study.tune()
    search, rebuilt = load(study.folder / JOURNAL), load(Recorded.of(study.folder).journal())
    assert [content(t) for t in rebuilt.trials] == [content(t) for t in search.trials]
    assert rebuilt.study_name == search.study_name
    assert rebuilt.directions == search.directions
    assert rebuilt.metric_names == search.metric_names
    assert [t.number for t in rebuilt.best_trials] == [t.number for t in search.best_trials]
    if space == "pruned":
        assert any(t.intermediate_values for t in rebuilt.trials)
    if space == "front":
        assert any(t.user_attrs["holds constraints"] == "no" for t in rebuilt.trials)


def test_the_search_itself_names_metrics_and_shows_plain_attributes(study: TinyStudy) -> None:
    study.space(trials=4, constraints={"dead_fraction_never": 0.2})
    study.tune()
    search = load(study.folder / JOURNAL)
    assert search.metric_names == ["l0", "fvu"]
    for trial in search.trials:
        shown = trial.user_attrs
        assert RECORD not in shown
        assert {"cell.expansion", "l0", "fvu", "dead_fraction_never", "seconds"} <= set(shown)
        assert all(isinstance(value, str | int | float) for value in shown.values())
        assert trial.duration is not None
        assert trial.duration.total_seconds() == pytest.approx(shown["seconds"], abs=0.1)


def test_a_trial_that_was_stopped_or_failed_says_why(study: TinyStudy) -> None:
    study.space(**SPACES["pruned"])
    study.tune()
    stopped = [t for t in load(study.folder / JOURNAL).trials if t.values is None]
    assert stopped
    reasons = [t.user_attrs["reason"] for t in stopped]
    assert any(reason.startswith("stopped at step") for reason in reasons)
    assert all(re.match(r"stopped at step \d+: |collapsed: |diverged", one) for one in reasons)


@pytest.fixture
def tuned(study: TinyStudy) -> TinyStudy:
    study.space(trials=4)
    study.tune()
    return study


def test_the_space_of_the_lock_is_the_one_of_the_trials(tuned: TinyStudy) -> None:
    declared = {
        "tune/params.yaml": {"tune": {**SPACE, "trials": 4}},
        "params.yaml": {"recipes": {}},
    }
    lock = {"stages": {"tune": {"params": declared}}}
    with (tuned.folder / "tune/dvc.lock").open("w") as file:
        YAML().dump(lock, file)
    before = [content(t) for t in Recorded.of(tuned.folder).trials()]
    tuned.space(all={"expansion": {"values": [2, 8]}, "lr": 0.01})  # edited since
    assert [content(t) for t in Recorded.of(tuned.folder).trials()] == before
    (tuned.folder / "tune/dvc.lock").unlink()
    with pytest.raises(StudyError, match=r"trials\.csv: trial 0: .* take all files of tune/ from"):
        Recorded.of(tuned.folder).trials()


def test_a_cell_that_the_space_does_not_make_is_named(tuned: TinyStudy) -> None:
    path = tuned.folder / "tune/trials.csv"
    path.write_text(path.read_text().replace('""expansion"":', '""expansion"":1', 1))
    with pytest.raises(StudyError, match=r"trial 0: is the cell .*, not .*another space"):
        Recorded.of(tuned.folder).trials()


def test_which_journal_is_shown(tuned: TinyStudy) -> None:
    live, csv = tuned.folder / JOURNAL, tuned.folder / "tune/trials.csv"
    assert journal_to_show(tuned.folder) == live
    kept = live.read_bytes()
    lines = kept.splitlines(keepends=True)
    live.write_bytes(b"".join(lines[:-1]))  # one trial fewer than trials.csv
    rebuilt = journal_to_show(tuned.folder)
    assert rebuilt.parent == tuned.folder / ".sae-repro"
    assert live.read_bytes() == b"".join(lines[:-1]), "the search's own journal is left alone"
    live.unlink()  # as in a clone
    written = rebuilt.read_bytes()
    assert journal_to_show(tuned.folder) == rebuilt
    assert rebuilt.read_bytes() == written, "it is made once"
    live.write_bytes(kept)
    csv.unlink()  # the first search, under way
    assert journal_to_show(tuned.folder) == live
    live.unlink()
    with pytest.raises(StudyError, match=r"trials\.csv: missing, .*dvc\.yaml` begins one"):
        journal_to_show(tuned.folder)


def test_another_search_is_shown_once_it_is_newer(tuned: TinyStudy) -> None:
    other = tuned.copy("other", "journal.log", "trials.csv", "best.yaml")
    other.space(trials=4, seed=1)
    other.tune()
    live = tuned.folder / JOURNAL
    shutil.copy(other.folder / JOURNAL, live)
    assert journal_to_show(tuned.folder) == live
    (tuned.folder / "tune/trials.csv").touch()  # pulled later than that search
    assert journal_to_show(tuned.folder) != live


def test_a_search_does_not_go_on_from_a_rebuilt_journal(tuned: TinyStudy) -> None:
    """It lacks what samplers noted; and beside the search's own it changes nothing."""
    at_once = tuned.copy("at-once", "journal.log")
    rebuilt = Recorded.of(tuned.folder).journal()
    tuned.space(trials=8)
    at_once.space(trials=8)
    assert tuned.tune() == at_once.tune()
    shutil.copy(rebuilt, tuned.folder / JOURNAL)
    with pytest.raises(StudyError, match=r"journal\.log: rebuilt from trials\.csv .*move the file"):
        tuned.tune()


def test_what_to_install_is_said(tuned: TinyStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(StudyError, match="optuna-dashboard is not installed") as caught:
        show(tuned.folder, 0, browser=False)
    assert str(caught.value) == INSTALL


def test_a_search_prints_its_trials_and_its_end(
    study: TinyStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    study.space(trials=4)
    study.tune()
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    trials = [line for line in lines if line.startswith("tune: trial ")]
    assert [line.partition(",")[0] for line in trials] == [f"tune: trial {n}" for n in range(4)]
    assert all("FVU " in line and line.endswith(" s") for line in trials)
    assert "tune: 4 trials: 4 ok" in lines
    assert "on the front, on the tuning documents:" in lines[lines.index(
        "tune: 4 trials: 4 ok") + 1]  # fmt: skip
    assert "tune/trials.csv, tune/best.yaml" in lines[-1]


@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_parameters_are_read_back_from_their_text(seed: int) -> None:
    shared = {"expansion": {"values": [2, 4.5]}, "lr": {"low": 1e-3, "high": 1e-1, "log": True}}
    tune = Tune.model_validate({**SPACE, "all": shared})
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    suggest(tune, trial)
    texts = {name: str(value) for name, value in trial.params.items()}
    assert read_params(tune, texts) == trial.params


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"recipe": "gated"}, "recipe = gated: not in the space"),
        ({"recipe": "vanilla", "expansion": "2"}, "vanilla: has the parameters"),
        (
            {"recipe": "vanilla", "expansion": "3", "lr": "0.01", "vanilla.lambda": "0.1"},
            "expansion = 3: not among 2, 4",
        ),
        (
            {"recipe": "vanilla", "expansion": "2", "lr": "9", "vanilla.lambda": "0.1"},
            "lr = 9: not from 0.001 to 0.1",
        ),
    ],
)
def test_parameters_that_no_trial_can_have_are_named(texts: dict[str, str], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        read_params(Tune.model_validate(SPACE), texts)


@pytest.mark.parametrize("content", [b"", b"\0\xff", b"a,b\n1,2\n", b"trial\nx\n", b'"', None])
def test_a_damaged_table_of_trials_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tune/trials.csv"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match=r"trials\.csv: .*; `dvc repro .* makes it") as error:
        trials(tmp_path)
    assert "\n" not in str(error.value)
