"""Faults in params.yaml: one line each with key, value and allowed values, before any compute."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.params import Cell, load, parse
from sae_repro.params.architecture import architecture_of
from sae_repro.params.axes import ACTIVATIONS

ROOT = Path(__file__).resolve().parents[2]
READ_K = [name for name, row in ACTIVATIONS.items() if "k" in row.reads]

STUDY: dict[str, Any] = {
    "root": ".",
    "compute": {},
    "seed": 0,
    "corpus": {"source": {"kind": "stories", "n_documents": 1000}},
    "subject": {"source": {"kind": "train"}, "training": {}},
    "extract": {"hooks": ["blocks.1.hook_resid_post"]},
    "train": {},
    "evaluate": {},
    "judge": {},
    "control": {},
    "compare": {},
    "report": {},
    "track": {},
    "recipes": {},
    "cells": {
        "vanilla": {"expansion": 4, "penalty": "l1", "lambda": 0.01},
        "topk": {"expansion": 4, "activation": "topk", "k": 8},
    },
}


def one_of(names: Iterable[str]) -> str:
    """'a', 'b' or 'c'."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}"


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(study: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            study = study[parent]
        study[last] = value

    return apply


FAULTS = {
    "unknown key": (
        change("cells/topk/learning_rate", 3), "cells.topk.learning_rate = 3: unknown key"),
    "more explained than labelled": (
        change("judge", {"latents": 60}), "judge: latents = 60: at most uniform = 50"),
    "a score twice": (
        change("judge", {"scores": ["fuzzing", "fuzzing"]}), "judge: scores names one score twice"),
    "a judge without an endpoint": (
        change("judge", {"kind": "http", "model": "m"}), "judge: kind: http needs base_url"),
    "unknown section": (change("trian", {}), "trian = {}: unknown key"),
    "wrong type": (
        change("train/batch_size", "many"), "train.batch_size = many: must be a valid integer"),
    "not whole": (change("train/epochs", 1.5), "train.epochs = 1.5: must be a valid integer"),
    "unknown architecture": (
        change("cells/topk/activation", "gelu"),
        f"cells.topk.activation = gelu: must be {one_of(ACTIVATIONS)}"),
    "k > K": (
        change("cells/topk/k", 257), "cells.topk.k = 257: allowed are 1 … 256 (K = 4 × 64)"),
    "layer the model lacks": (
        change("extract/hooks", ["blocks.3.hook_mlp_out"]),
        "extract.hooks.0 = blocks.3.hook_mlp_out: the model has layers 0 … 2"),
    "no such hook": (
        change("extract/hooks", ["blocks.1.hook_foo"]),
        "blocks.1.hook_foo: a subject trained here has no such hook; did you mean blocks.1."),
    "hook not extracted": (
        change("cells/topk/hook", "blocks.0.hook_mlp_out"),
        "cells.topk.hook = blocks.0.hook_mlp_out: not extracted; extract.hooks has blocks.1"),
    "target not extracted": (
        change("cells/topk/target_hook", "blocks.0.hook_mlp_out"),
        "cells.topk.target_hook = blocks.0.hook_mlp_out: not extracted; extract.hooks has blocks"),
    "a target that is read": (
        change("cells/topk/target_hook", "blocks.1.hook_resid_post"),
        "cells.topk.target_hook = blocks.1.hook_resid_post: the hook that it reads (the first of"),
    "skip to the input itself": (
        change("cells/topk/skip", True), "cells.topk: skip adds x·W_skip to the prediction of an"),
    "expansion 0": (
        change("cells/topk/expansion", 0), "cells.topk.expansion = 0: must be greater than 0"),
    "not a number": (
        change("cells/topk/lr", float("nan")), "cells.topk.lr = nan: must be a finite number"),
    "less than a batch": (
        change("cells/topk/tokens", 511),
        "cells.topk.tokens = 511: less than one batch (train.batch_size = 512)"),
    "too few tokens to resample": (
        change("cells/vanilla", {"expansion": 4, "penalty": "l1", "lambda": 0.01, "tokens": 51_200,
                                 "revival": "resample", "resample_every": 81}),
        "cells.vanilla.resample_every = 81: no resampling would ever happen; at most 80"),
    "infinite": (
        change("cells/vanilla/lambda", float("inf")),
        "cells.vanilla.lambda = inf: must be a finite number"),
    "idle field": (
        change("cells/vanilla/k", 3),
        f"k is read only with activation: {' | '.join(READ_K)}, here activation: relu"),
    "a frozen decoder resampled": (
        change("cells/topk", {"expansion": 4, "activation": "topk", "k": 3, "frozen": "decoder",
                              "revival": "resample", "resample_every": 5}),
        "keeps them as they were drawn"),
    "k missing": (change("cells/topk", {"expansion": 4, "activation": "topk"}), "needs k"),
    "a basis has no choices": (
        change("cells/topk", {"baseline": "pca", "expansion": 4}),
        "cells.topk: baseline: pca is given by the activations: nothing reads expansion"),
    "nothing random in a basis": (
        change("cells/topk", {"baseline": "neurons", "seed": 1}), "nothing reads seed"),
    "what only training reads": (
        change("cells/topk", {"baseline": "untrained", "expansion": 4, "lr": 0.1}),
        "baseline: untrained is the SAE before training: nothing reads lr; delete it"),
    "untrained topk without k": (
        change("cells/topk", {"baseline": "untrained", "expansion": 4, "activation": "topk"}),
        "needs k"),
    "untrained without a width": (
        change("cells/topk", {"baseline": "untrained"}), "expansion: missing"),
    "random weights not extracted": (
        change("cells/topk/hook", "untrained/blocks.1.hook_resid_post"),
        "extract.untrained_hooks (for untrained/<hook>) has none"),
    "layer that random weights lack": (
        change("extract/untrained_hooks", ["blocks.3.hook_mlp_out"]),
        "extract.untrained_hooks.0 = blocks.3.hook_mlp_out: the model has layers 0 … 2"),
    "untrained among the hooks": (
        change("extract/hooks", ["untrained/blocks.1.hook_mlp_out"]),
        "name it without untrained/, in extract.untrained_hooks"),
    "seed and seeds": (
        change("cells/topk", {**STUDY["cells"]["topk"], "seed": 1, "seeds": [0, 1]}),
        "seed and seeds exclude one another"),
    "a seed twice": (change("cells/topk/seeds", [1, 1]), "seeds names one seed twice"),
    "one of several seeds": (
        change("cells/topk/seeds", [1]), "cells.topk.seeds = [1]: List should have at least 2"),
    "seeds of a basis": (
        change("cells/topk", {"baseline": "pca", "seeds": [0, 1]}), "nothing reads seeds"),
    "no sparsity": (change("cells/vanilla", {"expansion": 4}), "nothing keeps relu sparse"),
    "no lambda": (
        change("cells/vanilla", {"expansion": 4, "penalty": "l1"}), "a penalty needs lambda"),
    "two sparsities": (
        change("cells/topk", {"expansion": 4, "activation": "topk", "k": 3, "penalty": "l1",
                              "lambda": 1}), "penalty must be none"),
    "gated without a penalty": (
        change("cells/vanilla", {"expansion": 4, "activation": "gated"}),
        "nothing keeps gated sparse"),
    "an auxiliary loss that is not there": (
        change("cells/topk/gated_auxiliary", "trained"),
        "gated_auxiliary is read only with activation: gated, here activation: topk"),
    "an auxiliary loss before training": (
        change("cells/vanilla", {"expansion": 4, "activation": "gated", "baseline": "untrained",
                                 "gated_auxiliary": "trained"}),
        "nothing reads gated_auxiliary"),
    "l0 without thresholds": (
        change("cells/vanilla/penalty", "l0"), "which only activation jumprelu has"),
    "quadratic without its target": (
        change("cells/vanilla", {"expansion": 4, "activation": "jumprelu", "lambda": 1,
                                 "penalty": "l0_quadratic"}), "give L0* as target_l0"),
    "target for topk": (
        change("cells/topk/target_l0", 3), "target_l0 is read only with penalty: l1 |"),
    "target over the width": (
        change("cells/vanilla/target_l0", 300),
        "cells.vanilla.target_l0 = 300: allowed are at most 256 (K = 4 × 64)"),
    "order without prefixes": (
        change("cells/topk/order", "contribution"), "order is read only with prefixes: fixed"),
    "free decoder under l1": (
        change("cells/vanilla/decoder", "free"), "use decoder: unit_norm"),
    "shares": (
        change("cells/topk", {"expansion": 4, "activation": "topk", "k": 3, "prefixes": "fixed",
                              "prefix_shares": [0.5, 0.4]}), "prefix_shares must sum to 1"),
    "empty group": (
        change("cells/topk", {"expansion": 4, "activation": "topk", "k": 3, "prefixes": "fixed",
                              "prefix_shares": [0.001, 0.999]}), "smallest group"),
    "all prefixes without k": (
        change("cells/vanilla/prefixes", "all"), "early in training half of relu's do"),
    "prefixes that don't end at k": (
        change("cells/topk", {"expansion": 4, "activation": "topk", "k": 3,
                              "prefixes": "hierarchical", "prefix_k": [1, 2]}),
        "prefix_k must rise to k = 3"),
    "too few weights": (
        change("cells/topk", {"expansion": 4, "activation": "topk", "k": 3,
                              "prefixes": "hierarchical", "prefix_weights": [1, 2]}),
        "prefix_weights are 2, prefixes 3"),
    "weights of drawn prefixes": (
        change("cells/topk", {"expansion": 4, "activation": "topk", "k": 3,
                              "prefixes": "random", "prefix_weights": [1, 2]}),
        "prefix_weights is read only with prefixes: fixed | hierarchical"),
    "never resampled": (
        change("cells/vanilla/revival", "resample"),
        "cells.vanilla.resample_every = 25000: no resampling would ever happen"),
    "no recipes": (lambda s: s.pop("recipes"), "recipes: missing, and the stages of dvc.yaml read"),
    "unknown key of a recipe": (
        change("recipes/shared", {"expnsion": 8}), "recipes.shared.expnsion = 8: unknown key"),
    "wrong value in a recipe, which a cell uses": (
        lambda s: (s["recipes"].update(shared={"expansion": 0}),
                   s["cells"]["topk"].update(recipe="shared")),
        "recipes.shared.expansion = 0: must be greater than 0"),
    "no choices": (
        change("recipes/hooks", ["blocks.0.hook_mlp_out"]),
        "recipes.hooks = ['blocks.0.hook_mlp_out']: must be a mapping of a cell's choices"),
    "a cell's unknown recipe": (
        lambda s: (s["recipes"].update(shared={}), s["cells"]["topk"].update(recipe="share")),
        "cells.topk.recipe = share: no such recipe; did you mean shared?"),
    "no name of a recipe": (
        change("cells/topk/recipe", ["shared"]), "cells.topk.recipe = ['shared']: no such recipe"),
    "a recipe's unknown recipe": (
        change("recipes/shared", {"recipe": "else"}),
        "recipes.shared.recipe = else: no such recipe; recipes has shared"),
    "recipes in a circle": (
        lambda s: s["recipes"].update(a={"recipe": "c"}, b={"recipe": "a"}, c={"recipe": "b"},
                                      d={"recipe": "c"}),
        "recipes.a.recipe = c: it starts from itself, a → c → b → a"),
    "nothing left of what is needed": (
        lambda s: (s["recipes"].update(shared={"activation": "topk", "k": 8}),
                   s["cells"].update(topk={"recipe": "shared", "expansion": 4, "k": None})),
        "cells.topk: activation topk needs k"),
    "unknown source": (
        change("corpus/source", {"kind": "web"}), "corpus.source.kind = web: allowed are"),
    "missing section": (lambda s: s.pop("extract"), "extract: missing"),
    "no cells": (change("cells", {}), "cells = {}"),
    "bad cell name": (change("cells/A.b", STUDY["cells"]["topk"]), "cells.A.b"),
    "context too long": (
        change("extract/context", 65), "extract.context = 65: the subject has 64 positions"),
    "batch larger than data": (
        change("extract/n_tokens", 100), "train.batch_size = 512: more than the 100"),
    "training without train": (
        change("subject", {"source": {"kind": "hub", "name": "a/b", "revision": "a" * 40,
                                      "d_model": 8, "n_layers": 2}, "training": {}}),
        "training goes with source: {kind: train}"),
    "labels without their words": (
        change("subject", {"source": {"kind": "hub", "name": "a/b", "revision": "a" * 40,
                                      "d_model": 64, "n_layers": 2}}),
        "its labels belong to its own words"),
    "branch for a commit": (
        change("corpus/source", {"kind": "hub", "name": "a/b", "revision": "main"}),
        "corpus.source.revision = main"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_exit_code_two(fault: str, tmp_path: Path) -> None:
    apply, says = FAULTS[fault]
    study = deepcopy(STUDY)
    apply(study)
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(study, file)
    with pytest.raises(StudyError) as caught:
        load(tmp_path / "params.yaml")
    lines = str(caught.value).splitlines()
    assert len([line for line in lines if says in line]) == 1, lines
    assert all(line.startswith(str(tmp_path / "params.yaml")) for line in lines)


def test_the_study_behind_these_faults_is_valid() -> None:
    assert len(parse(STUDY).cells) == 2


def sae_repro(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from sae_repro.cli import main\ntry:\n main()\nfinally:\n" \
           " print('torch' in sys.modules)"  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_check_exits_with_two_and_without_a_traceback_or_torch(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("cells: {a: {expansion: 0}}\n")
    done = sae_repro("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "cells.a.expansion = 0: must be greater than 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "False\n"


def test_check_of_the_root_study_needs_no_torch() -> None:
    done = sae_repro("check", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok: ")
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [("a: [1\n", "while parsing"), ("- 1\n", "no mapping"), ("a: 1\na: 2\n", "duplicate key")],
)
def test_broken_yaml_says_where(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(StudyError, match=says) as caught:
        load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_study_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert "no such file" in str(result.exception)


def test_numbers_and_merges_are_yaml_1_2(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "root: .\nseed: 0\ncompute: {}\n"
        "recipes: {v: &v {expansion: 4, penalty: l1, lambda: 1e-2}}\n"
        "corpus: {source: {kind: stories, n_documents: 1_000}}\n"
        "subject: {source: {kind: train}, training: {}}\n"
        "extract: {hooks: [blocks.0.hook_mlp_out]}\n"
        "train: {}\nevaluate: {}\njudge: {}\ncontrol: {}\ncompare: {}\nreport: {}\ntrack: {}\n"
        "cells: {a: {<<: *v}, b: {<<: *v, lambda: 1e-4}}\n"
    )
    study = load(tmp_path / "params.yaml")
    assert [cell.lambda_ for cell in study.cells.values()] == [0.01, 0.0001]


def test_a_default_spelled_out_is_the_same_cell() -> None:
    """A cell's identity seeds its generators: it must not depend on how the cell is written."""
    spelled = deepcopy(STUDY)
    spelled["cells"]["topk"] |= {"adam_eps": 1e-8, "prefixes": "none"}
    assert parse(spelled).cells["topk"].identity() == parse(STUDY).cells["topk"].identity()


def test_a_cell_under_two_names_is_refused() -> None:
    topk = STUDY["cells"]["topk"]
    for twin in (topk, {**topk, "hook": "blocks.1.hook_resid_post", "lr_warmup": 0.05}):
        with pytest.raises(StudyError, match=r"cells\.twin: the same cell as topk"):
            parse({**STUDY, "cells": {"topk": topk, "twin": twin}})
    parse({**STUDY, "cells": {"topk": topk, "twin": {**topk, "seed": 1}}})


def test_a_pinned_file_that_changed_is_named(tmp_path: Path) -> None:
    documents = [f"document {number}" for number in range(200)]
    (tmp_path / "a.txt").write_text("\n\n".join(documents))
    study = deepcopy(STUDY)
    pin = sha256_file(tmp_path / "a.txt")
    study["corpus"]["source"] = {"kind": "files", "files": {"a.txt": pin}}
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(study, file)
    runner = CliRunner()
    assert runner.invoke(app, ["check", str(tmp_path)]).exit_code == 0
    (tmp_path / "a.txt").write_text("\n\n".join(documents[1:]))
    broken = runner.invoke(app, ["check", str(tmp_path)])
    assert "has changed: its SHA-256 is" in str(broken.exception)
    output = runner.invoke(app, ["pin", str(tmp_path)])
    assert f"{pin} → {sha256_file(tmp_path / 'a.txt')}" in output.output
    assert runner.invoke(app, ["check", str(tmp_path)]).exit_code == 0


def test_a_judge_without_answers_is_refused_before_any_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    record = tmp_path / "judge/answers.jsonl"
    judge = {"model": "m", "base_url": "https://host/v1", "key_env": "SOME_KEY"}

    def checked(kind: str) -> str:
        with (tmp_path / "params.yaml").open("w") as file:
            YAML().dump({**STUDY, "judge": {**judge, "kind": kind}}, file)
        result = CliRunner().invoke(app, ["check", str(tmp_path)])
        return result.output if result.exit_code == 0 else str(result.exception)

    assert checked("concepts").startswith("ok")
    assert "answers.jsonl has no answers; fetch it (`dvc pull`)" in checked("replay")
    assert checked("http") == "judge.key_env = SOME_KEY: not set in the environment; export it"
    record.parent.mkdir()
    record.write_text("\n")  # as a study of the kind concepts leaves it
    assert "has no answers" in checked("replay")
    record.write_text("{}\n")
    assert checked("replay").startswith("ok")
    assert checked("http").startswith("ok"), "a complete record needs no key"
    record.unlink()
    monkeypatch.setenv("SOME_KEY", "k")
    assert checked("http").startswith("ok")


def test_the_schema_lists_every_key() -> None:
    output = CliRunner().invoke(app, ["check", "--schema"]).output
    for key in ("corpus.source [kind: hub].revision", "cells.<name>.lambda", "train.epochs",
                "subject.training.lr", "judge.scores", "compare.matched_l0"):  # fmt: skip
        assert f"\n{key} (" in output


def test_published_recipes_may_leave_the_decoder_free_under_l1() -> None:
    study = deepcopy(STUDY)
    for published in ({"revival": "resample_published", "resample_every": 500},
                      {"prefixes": "random_published"}):  # fmt: skip
        study["cells"]["vanilla"] = {
            "expansion": 4, "penalty": "l1", "lambda": 0.01, "decoder": "free", **published,
        }  # fmt: skip
        assert parse(study).cells["vanilla"].decoder == "free"


def test_negative_controls_are_cells_and_keep_what_they_read() -> None:
    study = deepcopy(STUDY)
    study["extract"]["untrained_hooks"] = ["blocks.0.hook_mlp_out"]
    study["cells"] |= {
        "neurons": {"baseline": "neurons"},
        "start": {"baseline": "untrained", "expansion": 4, "activation": "batchtopk", "k": 3,
                  "b_dec_init": "zero", "seed": 2},
        "relu": {"baseline": "untrained", "expansion": 4},
        "random-weights": {**STUDY["cells"]["topk"], "hook": "untrained/blocks.0.hook_mlp_out"},
    }  # fmt: skip
    parsed = parse(study)
    assert parsed.extract.all_hooks == (
        "blocks.1.hook_resid_post",
        "untrained/blocks.0.hook_mlp_out",
    )
    assert parsed.cells["neurons"].width(64) == 128
    assert parsed.cells["topk"].identity() == parse(STUDY).cells["topk"].identity()


def test_a_transcoder_predicts_another_hook_of_the_same_model() -> None:
    study = deepcopy(STUDY)
    study["extract"] = {
        "hooks": ["blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"],
        "untrained_hooks": ["blocks.1.hook_mlp_out"],
    }
    topk = study["cells"]["topk"]
    study["cells"] = {
        "sae": topk,
        "transcoder": {**topk, "target_hook": "blocks.1.hook_mlp_out"},
        "skip": {**topk, "target_hook": "blocks.1.hook_mlp_out", "skip": True},
    }
    cells = parse(study).cells
    assert [cell.subtracts_b_dec for cell in cells.values()] == [True, False, False]
    assert [architecture_of(cell) for cell in cells.values()] == [
        f"topk{kind} without revival" for kind in ("", " transcoder", " skip transcoder")
    ]
    assert "target_hook" not in cells["sae"].identity()  # nothing is trained again
    study["cells"]["skip"]["target_hook"] = "untrained/blocks.1.hook_mlp_out"
    with pytest.raises(StudyError, match="of another model than blocks"):
        parse(study)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"hook": "a", "target_hook": "a"}, "target_hook a is hook itself"),
        ({"target_hook": "a", "apply_b_dec_to_input": False}, "lies among its targets"),
        ({"target_hook": "a", "revival": "resample_published"}, "code that had no target_hook"),
        ({"skip": True}, "or delete skip"),
        ({"baseline": "untrained", "target_hook": "a", "skip": True}, "nothing reads skip"),
    ],
)
def test_what_a_transcoder_cannot_be_is_said(choices: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Cell.model_validate({"expansion": 4, "activation": "topk", "k": 3, **choices})


def test_a_cell_with_seeds_stands_for_cells_with_one_seed_each() -> None:
    """The identity seeds generators and finds finished SAEs: it must not know the companions."""
    study = deepcopy(STUDY)
    study["cells"] |= {
        "several": {**STUDY["cells"]["topk"], "seeds": [0, 3]},
        "alone": {**STUDY["cells"]["topk"], "seed": 3},
    }
    cells = parse(study).cells
    members = cells["several"].members()
    assert list(members) == ["seed-0", "seed-3"]
    assert members["seed-0"].identity() == cells["topk"].identity()
    assert members["seed-3"].identity() == cells["alone"].identity()
    assert cells["topk"].members() == {".": cells["topk"]}


def test_l0_target_of_a_cell() -> None:
    cells = parse(STUDY).cells
    assert cells["topk"].l0_target == 8
    assert cells["vanilla"].l0_target is None
    assert cells["vanilla"].model_copy(update={"target_l0": 3.5}).l0_target == 3.5
