"""Several studies alike: equal budgets, no leak of validation documents, settings over L0s."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.errors import StudyError
from sae_repro.params import Cell, load
from sae_repro.params.tune import AT_L0, L0_OFF
from sae_repro.tune.confirming import Tuned
from sae_repro.tune.results import Trial, trials
from sae_repro.tune.space import Part, load_tune
from sae_repro.tune.tables import sentence

from .conftest import TinyStudy, make_poisoned

RECIPES = """\
recipes:
  # comments stay
  topk: {activation: topk, expansion: 2, seeds: [4, 5]}   # to the byte
  shrunk:
    activation: batchtopk
    expansion: 2
    lr: 1.0e-3   # SAELens has 3e-4

"""
STUDIES: dict[str, Any] = {
    "trials": 3,
    "batch": 2,
    "sampler": "random",
    "studies": {"target_l0": [2, 3], "l0_tolerance": 0.5, "seeds": [1]},
    "all": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}},
    "recipes": {
        "topk": {"recipe": "topk"},
        "batch": {"recipe": "shrunk", "lr_decay": {"low": 0.1, "high": 0.9}},
    },
}


@pytest.fixture
def studies(study: TinyStudy) -> TinyStudy:
    """Two recipes at two L0s: four studies, in which nothing was tuned yet."""
    params = study.folder / "params.yaml"
    params.write_text(params.read_text().replace("recipes: {}\n", RECIPES))
    study.space(**{**STUDIES, "objectives": None})
    return study


def of(found: list[Trial], place: int) -> list[Trial]:
    return found[place::4]


def test_each_study_has_the_same_budget_and_begins_with_the_recipe(studies: TinyStudy) -> None:
    studies.tune()
    found = trials(studies.folder)
    assert len(found) == 12
    expected = [("topk", 2), ("topk", 3), ("batch", 2), ("batch", 3)]
    for place, (recipe, l0) in enumerate(expected):
        own = of(found, place)
        assert {t.recipe for t in own} == {recipe}
        assert {t.choices["k"] for t in own} == {l0}
        cells = [Cell.model_validate(t.choices) for t in own]
        # of what a recipe leaves out, the middle of the range
        assert cells[0].lr == {"topk": 1e-2, "batch": 1e-3}[recipe] and cells[0].lr_decay == 0.2
        assert sum(t.best for t in own) == 1
        best = min(own, key=lambda t: t.metrics[AT_L0])
        assert best.best
        for t in own:
            assert t.metrics[L0_OFF] == pytest.approx(abs(t.metrics["l0"] / l0 - 1))
            expected_fvu = t.metrics["fvu"] * (t.metrics["l0"] / l0) ** 0.5
            assert t.metrics[AT_L0] == pytest.approx(expected_fvu)
    # the same draw of what they have in common
    second = [of(found, place)[1].choices["lr"] for place in range(4)]
    assert len(set(second)) == 1 and second[0] != 1e-3


def test_more_trials_later_are_the_same_as_all_at_once(studies: TinyStudy) -> None:
    at_once = studies.copy("at-once")
    at_once.tune()
    studies.space(**{**STUDIES, "trials": 1})
    studies.tune()
    studies.space(**STUDIES)
    studies.tune()
    assert studies.outputs() == at_once.outputs()
    for name in ("tuning.md", "tuning.csv"):
        texts = [(s.folder / "tune" / name).read_bytes() for s in (studies, at_once)]
        assert texts[0] == texts[1]


@pytest.mark.parametrize(("split", "changes"), [("validation", False), ("tuning", True)])
def test_trials_read_tuning_documents_and_no_validation_document(
    studies: TinyStudy, split: str, changes: bool
) -> None:
    studies.space(**{**STUDIES, "trials": 1})
    poisoned = studies.copy("poisoned")
    make_poisoned(poisoned.folder / "artifacts/extract", split)
    studies.tune()
    poisoned.tune()
    values = [[t.metrics for t in trials(s.folder)] for s in (studies, poisoned)]
    assert (values[0] != values[1]) == changes


def test_a_study_without_tuning_documents_says_what_to_set(
    study: TinyStudy, make_store: Callable[..., Path]
) -> None:
    make_poisoned(study.folder / "artifacts/extract", "tuning", leave_out=True)
    with pytest.raises(StudyError, match=r"set corpus\.tuning .*extract\.n_tuning_tokens"):
        study.tune()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"objectives": {"fvu": "minimize"}}, "objectives: not with studies"),
        ({"all": {"target_l0": 3}}, "all.target_l0: studies.target_l0 decides it"),
        ({"all": {"lr": {"low": 2e-3, "high": 1e-1}}}, "the recipe has 0.001, with which each"),
    ],
)
def test_what_does_not_go_with_studies_is_refused(
    studies: TinyStudy, change: dict[str, Any], says: str
) -> None:
    studies.space(**{**STUDIES, **change})
    with pytest.raises(StudyError) as refused:
        load_tune(studies.folder)
    assert says in str(refused.value)


def test_adopted_settings_change_values_alone(studies: TinyStudy) -> None:
    studies.tune()
    params = studies.folder / "params.yaml"
    before = params.read_text()
    best = YAML(typ="safe").load(studies.folder / "tune/best.yaml")
    wanted = {"topk": {"lr": 3e-3}, "batch": {"lr": 0.02, "lr_decay": 0.5}}
    for name, choices in wanted.items():
        best["recipes"][name] |= {"improved": True, "choices": choices}
    with (studies.folder / "tune/best.yaml").open("w") as file:
        YAML().dump(best, file)
    dry = CliRunner().invoke(app, ["adopt", "--dry-run"])
    assert "dry run: nothing was written" in dry.output and params.read_text() == before
    result = CliRunner().invoke(app, ["adopt"])
    assert result.exit_code == 0, result.exception
    assert params.read_text() == before.replace(
        "expansion: 2, seeds: [4, 5]}", "expansion: 2, lr: 3e-3, seeds: [4, 5]}"
    ).replace("    lr: 1.0e-3 ", "    lr: 0.02 ").replace(
        "SAELens has 3e-4\n", "SAELens has 3e-4\n    lr_decay: 0.5\n"
    )
    load(params)
    assert "nothing to change" in CliRunner().invoke(app, ["adopt"]).output
    best["recipes"]["topk"] |= {"improved": False, "choices": {"lr": 9e-3}}
    with (studies.folder / "tune/best.yaml").open("w") as file:
        YAML().dump(best, file)
    assert "topk: stays as it is" in CliRunner().invoke(app, ["adopt"]).output
    assert "lr: 9e-3" not in params.read_text()


def at(recipe: str, default: float, tuned: float, spread: float = 0.01) -> Tuned:
    seeds = (1.0, 1.001, 0.999)
    return Tuned(
        part=Part(recipe, 8), trials=4, feasible=4, training_tokens=1, tuning_tokens=1, best=0,
        best_fvu=tuned, spread=spread, default=tuple(default * s for s in seeds),
        tuned=tuple(tuned * s for s in seeds),
    )  # fmt: skip


def test_a_pair_is_undecided_within_the_spread_and_turned_beyond_it() -> None:
    assert list(sentence(at("a", 0.1, 0.05), at("b", 0.2, 0.06))) == []
    (turned,) = sentence(at("a", 0.1, 0.06), at("b", 0.2, 0.05))
    assert "turned by tuning, b is lower" in turned
    (close,) = sentence(at("a", 0.1, 0.05), at("b", 0.2, 0.051))
    assert "undecided" in close and "2.0% apart" in close
    (wide,) = sentence(at("a", 0.1, 0.06), at("b", 0.2, 0.05, spread=0.2))
    assert "undecided" in wide and "0.1 and 0.2 as they are" in wide


def test_a_trial_that_misses_its_l0_is_never_best(studies: TinyStudy) -> None:
    """BatchTopK's held-out L0 is not k to the digit; TopK's is."""
    studies.space(**{**STUDIES, "all": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}},
                     "studies": {"target_l0": [2, 3], "l0_tolerance": 1e-9,
                                 "seeds": [1]}})  # fmt: skip
    studies.tune()
    found = trials(studies.folder)
    assert {t.recipe for t in found if t.best} == {"topk"}
    text = (studies.folder / "tune/tuning.md").read_text()
    assert "undecided, batch does not hold the target L0" in text
    assert np.isfinite([t.metrics["fvu"] for t in found]).all()
