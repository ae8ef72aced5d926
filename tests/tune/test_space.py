"""The search space: valid cells within their ranges; faults are named before any compute."""

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.cli.checking import check_lines
from sae_repro.errors import StudyError
from sae_repro.params import Cell, Tune, check_section
from sae_repro.tune.proposals import propose_batch
from sae_repro.tune.records import TrialRecord
from sae_repro.tune.results import best_of
from sae_repro.tune.space import load_tune, suggest

from .conftest import ROOT, SPACE, TinyStudy

MIXED = {
    "all": {"expansion": 4, "target_l0": {"low": 2.5, "high": 9.5, "log": True}},
    "recipes": {
        "topk": {"activation": "topk", "expansion": {"values": [2, 8]}},
        "gated": {
            "activation": "gated",
            "penalty": "l1",
            "lambda": {"low": 0.0123, "high": 0.1},
            "lr": {"low": 0.0012345, "high": 0.0012354},
        },
        "fixed-k": {"activation": "batchtopk", "k": 3},
    },
}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_every_proposal_is_a_cell_within_its_ranges(seed: int) -> None:
    tune = Tune.model_validate(MIXED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    choices = suggest(tune, trial)
    cell = check_section(Cell, choices)
    recipe = trial.params["recipe"]
    assert cell.expansion in ((2, 8) if recipe == "topk" else (4,))
    if recipe == "gated":
        assert cell.target_l0 is not None and cell.lambda_ is not None
        assert 2.5 <= cell.target_l0 <= 9.5
        assert 0.0123 <= cell.lambda_ <= 0.1
        assert float(f"{cell.lambda_:.3g}") == cell.lambda_  # people can read it
        assert 0.0012345 <= cell.lr <= 0.0012354  # three digits would leave the range
    elif recipe == "topk":
        assert cell.k == round(trial.params["target_l0"])
    else:
        assert cell.k == 3
        assert "target_l0" not in trial.params  # nobody would read it


def test_a_range_of_all_is_one_parameter_and_a_recipes_own_bears_its_name() -> None:
    tune = Tune.model_validate({**MIXED, "sampler": "random", "batch": 20})
    names = {name for proposal in propose_batch(tune, "x", [], 20) for name in proposal.params}
    assert names == {"recipe", "target_l0", "topk.expansion", "gated.lambda", "gated.lr"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"samplr": "tpe"}, "tune.samplr = tpe: unknown key"),
        ({"all": {"expansoin": 2}}, "all.expansoin: no choice of a cell that can be searched"),
        ({"all": {"import": "x"}}, "all.import: no choice of a cell"),
        ({"all": {"lr": {"low": 1, "hgih": 2}}}, "hgih"),
        ({"all": {"lr": {"low": 1, "high": 1}}}, "low = 1 must be below high = 1"),
        ({"all": {"lr": {"low": 0, "high": 1, "log": True}}}, "a logarithm needs low > 0"),
        ({"all": {"expansion": {"values": [2, 4]}, "k": {"low": 1, "high": 9}}},
         "tune.recipes.vanilla-low-0: k is read only with activation: topk"),
        ({"recipes": {"a": {"activation": "topk", "k": {"low": 1, "high": 40}}}},
         "tune.recipes.a-high-0.k = 40: allowed are 1 … 16"),
        ({"objectives": {}}, "objectives"),
        ({"objectives": {"fuv": "minimize"}}, "fuv: no such metric; did you mean fvu?"),
        ({"constraints": {"coverage": 1}},
         "tune.constraints.coverage: not measured on tuning documents"),
        ({"seed": True}, "tune.seed = true: must be a valid integer"),
        ({"all": {"expansion": 4, "target_l0": "8"}}, 'target_l0 = "8": must be a valid number'),
        ({"all": {"expansion": 4, "target_l0": float("inf")}}, "target_l0 = inf: must be"),
        ({"all": {"lr": {"low": True, "high": 2}}}, "tune.all.lr.low = true: must be"),
        ({"all": {"n_prefixes": {"low": 2.0, "high": 9}, "prefixes": "random"}},
         "n_prefixes = 2.0: must be a valid integer"),
        ({"weights": {"l0": 1}}, "weights: name each objective"),
        ({"pruner": {"min_steps": 16}}, "it needs objectives: {fvu: minimize}"),
        ({"pruner": {"min_steps": 20}, "objectives": {"fvu": "minimize"}},
         "must be a multiple of train.checkpoint_every = 16"),
    ],
)  # fmt: skip
def test_a_fault_is_named_before_any_compute(
    study: TinyStudy, change: dict[str, Any], says: str
) -> None:
    study.space(**change)
    with pytest.raises(StudyError) as refused:
        load_tune(study.folder)
    assert says in str(refused.value)
    assert "tune/params.yaml" in str(refused.value)


def test_a_rolling_buffer_is_refused_by_check_and_by_the_stage(study: TinyStudy) -> None:
    for name in ("dvc.yaml", "stages"):
        (study.folder / name).symlink_to(ROOT / name)
    params = study.folder / "params.yaml"
    whole = params.read_text()

    def rolling(buffer: int) -> None:
        kept = f"n_tokens: 4096, buffer: {buffer}, keep: buffer"
        params.write_text(whole.replace("n_tokens: 4096", kept))

    rolling(1024)
    says = "trials train on 4,096 tokens .*keeps 1,024 .*set extract.keep to all"
    with pytest.raises(StudyError, match=rf"tune/params.yaml: {says}"):
        study.tune()
    assert not (study.folder / "tune/journal.log").exists()
    with pytest.raises(StudyError, match=says):
        list(check_lines(study.folder, probe=False))
    for change in (lambda: rolling(4096), lambda: params.write_text(whole)):
        change()
        assert "ok: tune, 10 trials over topk, vanilla" in list(
            check_lines(study.folder, probe=False)
        )


def test_a_space_with_too_many_corners_is_refused_uncounted(study: TinyStudy) -> None:
    """12 lists of 100 values have 10²⁴."""
    keys = [
        "lr",
        "lr_warmup",
        "lr_decay",
        "adam_eps",
        "grad_clip",
        "lambda_warmup",
        "expansion",
        "auxk_coefficient",
        "resample_bias",
        "resample_until",
        "prefix_alpha",
        "target_l0",
    ]
    study.space(all={key: {"values": [i / 101 for i in range(1, 101)]} for key in keys})
    with pytest.raises(StudyError) as refused:
        load_tune(study.folder)
    topk, vanilla = str(refused.value).splitlines()
    assert f"tune.recipes.topk: {2 * 100**11:,} combinations of listed values" in topk
    assert f"tune.recipes.vanilla: {100**12:,} combinations" in vanilla
    study.space(all={"expansion": 4, "lr": {"values": [i / 1001 for i in range(1, 1001)]}})
    _, corners = load_tune(study.folder)
    assert len(corners.cells) == (2 * 1000 + 1000) * 2


def test_every_corner_of_the_space_is_checked(study: TinyStudy) -> None:
    _, corners = load_tune(study.folder)
    ks = {cell.k for name, cell in corners.cells.items() if name.startswith("topk")}
    assert ks == {1, 6}
    # expansion × prefixes × (low, high), and expansion × (low, high)
    assert len(corners.cells) == 2 * 2 * 2 + 2 * 2
    assert SPACE["recipes"].keys() == {name.rsplit("-", 2)[0] for name in corners.cells}


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12),
    directions=st.tuples(*[st.sampled_from(["minimize", "maximize"])] * 2),
    broken=st.sets(st.integers(0, 11)),
)
def test_the_front_is_optunas(
    values: list[tuple[int, int]], directions: tuple[str, str], broken: set[int]
) -> None:
    tune = Tune.model_validate({**SPACE, "objectives": dict(zip("ab", directions, strict=True))})
    study = optuna.create_study(directions=directions)
    records = []
    for number, pair in enumerate(values):
        feasible = number not in broken
        study.add_trial(
            optuna.trial.create_trial(values=pair, constraints={"c": 0.0 if feasible else 1.0})
        )
        losses = tuple(v if d == "minimize" else -v for v, d in zip(pair, directions, strict=True))
        records.append(
            TrialRecord(number, "ok", "", {}, {}, {}, losses, feasible, f"{number}", "", "")
        )
    assert [t.number for t in best_of(tune, records)] == [t.number for t in study.best_trials]


def test_the_same_cell_is_best_once() -> None:
    tune = Tune.model_validate(SPACE)
    records = [
        TrialRecord(n, "ok", "", {}, {}, {}, (1.0, 1.0), True, "same", "", "") for n in range(3)
    ]
    assert [t.number for t in best_of(tune, records)] == [0]
