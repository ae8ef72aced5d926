"""DVC sees every module that decides an output: an edit makes the right stages stale, no others."""

import json

import pytest

from sae_repro.closure import EXEMPT, closure
from sae_repro.params import read_yaml

from .conftest import ROOT, Checkout

STAGES = frozenset(read_yaml(ROOT / "dvc.yaml")["stages"])
MEANT = {
    "numerics/random.py": {
        "subject",
        "extract",
        "train",
        "evaluate",
        "judge",
        "control",
        "compare",
    },
    "numerics/hashing.py": {"corpus", "evaluate", "extract", "judge", "compare", "report"},
    "numerics/intervals.py": {"evaluate", "judge", "compare"},
    "numerics/determinism.py": {
        "subject",
        "extract",
        "train",
        "evaluate",
        "judge",
        "control",
        "report",
    },
    "params/cell.py": {
        "train",
        "evaluate",
        "judge",
        "control",
        "compare",
        "report",
        "track",
    },
    **{
        f"params/{module}.py": {
            *("train", "evaluate", "judge", "control", "compare", "report", "track"),
        }
        for module in (
            *("cell_source", "cell_code", "cell_prefixes", "cell_revival", "cell_training"),
            *("division", "fp32", "joint"),
        )
    },
    "params/worlds.py": {"control"},
    "training/trainer.py": {"train", "evaluate", "control"},
    "training/steps/nesting.py": {"train", "evaluate", "control"},
    "parallel/micro_batches.py": {"train"},
    "parallel/shards.py": {"train"},
    "params/layered.py": {"train", "evaluate", "judge", "compare", "report", "track"},
    "autoencoders/crosscoding.py": {"train", "evaluate", "judge", "control", "report"},
    "autoencoders/losses.py": {"train", "evaluate", "control"},
    "autoencoders/nested.py": {"train", "evaluate", "control"},
    "evaluate/crosscoded.py": {"evaluate"},
    "readers/joined.py": {"train", "evaluate", "judge", "control", "report"},
    "autoencoders/interchange/formats.py": {"train"},
    "stories/lexicon.py": {"corpus", "subject", "evaluate"},
    "concepts/halves.py": {"evaluate", "judge", "report"},
    "metrics/world_truth.py": {"compare"},
    "latents/overlap.py": set(),
    "errors.py": set(),
    "progress.py": set(),
    "sidebyside.py": set(),
}
"""Stages by what the module means to them, written down apart from any derivation."""


@pytest.fixture(scope="module")
def edited(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A finished study of its own, whose code tests may edit."""
    return finished.copy(tmp_path_factory.mktemp("edited") / "checkout")


def stale_after(checkout: Checkout, module: str, line: str) -> set[str]:
    """The stages that DVC calls stale after a line is added to a file and `code` has run."""
    path = checkout.folder / "src" / "sae_repro" / module
    text = path.read_text()
    path.write_text(f"{text}{line}\n")
    try:
        checkout.repro("code/dvc.yaml")
        changes = json.loads(checkout.command("dvc", "status", "--json", "dvc.yaml")[1])
    finally:
        path.write_text(text)
    return {
        stage
        for stage, entries in changes.items()
        for entry in entries
        if isinstance(entry, dict)
        and any(path.startswith("code/") for path in entry.get("changed deps", {}))
    }


@pytest.mark.slow
@pytest.mark.parametrize("module", MEANT)
def test_known_modules_make_the_known_stages_stale(module: str, edited: Checkout) -> None:
    assert stale_after(edited, module, "EDITED = True") == MEANT[module]


def test_an_edit_of_code_makes_its_stages_stale_and_a_comment_none(edited: Checkout) -> None:
    module = "numerics/intervals.py"
    assert stale_after(edited, module, "# a comment") == set()
    assert stale_after(edited, module, "EDITED = True") == MEANT[module]


def test_after_a_comment_nothing_runs_again(edited: Checkout) -> None:
    edited.repro("code/dvc.yaml")
    path = edited.folder / "src/sae_repro/training/trainer.py"
    path.write_text(path.read_text() + "# a comment\n")
    before = (edited.folder / "code/train.txt").read_bytes()
    assert edited.ran(edited.repro()) == []
    assert (edited.folder / "code/train.txt").read_bytes() == before


def test_a_stage_alone_refuses_code_that_is_not_recorded(edited: Checkout) -> None:
    """`--single-item` leaves out the stage `code`, and dvc.lock would name the code of before."""
    path = edited.folder / "src/sae_repro/compare/matched.py"
    text = path.read_text()
    path.write_text(text + "EDITED = True\n")
    try:
        code, said = edited.command("dvc", "repro", "--force", "--single-item", "compare")
    finally:
        path.write_text(text)
    assert code and "code/compare.txt: not of the code in src: sae_repro/compare/matched.py" in said
    assert "`dvc repro code/dvc.yaml`" in said


def test_known_modules_are_imported_by_the_known_stages() -> None:
    closures = {stage: closure(ROOT / "src", f"sae_repro.{stage}") for stage in STAGES}
    for module, stages in MEANT.items():
        name = "sae_repro." + module.removesuffix(".py").replace("/", ".")
        assert {stage for stage in STAGES if name in closures[stage]} == stages, module


def test_every_stage_depends_on_the_lock_and_on_its_code() -> None:
    (written,) = read_yaml(ROOT / "code" / "dvc.yaml")["stages"].values()
    named = []
    for path in (ROOT / "dvc.yaml", ROOT / "tune" / "dvc.yaml"):
        for stage, entry in read_yaml(path)["stages"].items():
            code = [dep for dep in entry["deps"] if dep.startswith(("./code", "./src"))]
            assert code == [f"./code/{stage}.txt"]
            assert "./requirements.lock" in entry["deps"], stage
            named.append(f"code/{stage}.txt")
    assert [path for out in written["outs"] for path in out] == named
    assert written["deps"] == ["src/sae_repro"]


def test_exempt_modules_are_in_no_code_file() -> None:
    for stage in STAGES:
        assert not EXEMPT.keys() & closure(ROOT / "src", f"sae_repro.{stage}")


def test_tune_depends_on_activations_alone() -> None:
    """A trial trains its own SAE, and is measured without the language model or concepts."""
    from sae_repro.params import read_yaml

    deps = read_yaml(ROOT / "tune" / "dvc.yaml")["stages"]["tune"]["deps"]
    assert {dep for dep in deps if dep.startswith("artifacts/")} == {
        "artifacts/extract/contents.json"
    }
