"""DVC sees every module that decides an output: an edit makes the right stages stale, no others."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def shared_modules(checkout: Checkout) -> list[str]:
    """The modules of the package, as paths below it, that are no part of a stage or a driver."""
    package = checkout.folder / "src" / "sae_repro"
    paths = [path.relative_to(package) for path in sorted(package.rglob("*.py"))]
    return [str(path) for path in paths if path.parts[0] not in {*STAGES, "tune", "cli"}]


@pytest.fixture(scope="module")
def stale(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., set[str]]:
    """The stages that `dvc status` calls stale, for their code, after a line is added to a file."""
    from dvc.repo import Repo

    checkout = finished.copy(tmp_path_factory.mktemp("edited") / "checkout")
    package = checkout.folder / "src" / "sae_repro"

    def after_edit(module: str, line: str = "EDITED = True") -> set[str]:
        path = package / module
        text = path.read_text()
        path.write_text(f"{text}{line}\n")
        here = Path.cwd()
        os.chdir(checkout.folder)
        try:
            changes: dict[str, Any] = Repo(str(checkout.folder)).status()
        finally:
            os.chdir(here)
            path.write_text(text)
        return {
            stage
            for stage, entries in changes.items()
            for entry in entries
            if isinstance(entry, dict)
            and any("src/sae_repro" in path for path in entry.get("changed deps", {}))
        }

    return after_edit


def test_every_module_is_a_dependency_of_the_stages_that_import_it(fresh: Checkout) -> None:
    """As DVC itself reads dvc.yaml; that it then sees an edit, `MEANT` shows by example."""
    from dvc.repo import Repo

    source = fresh.folder / "src"
    closures = {stage: closure(source, f"sae_repro.{stage}") for stage in STAGES}
    watched = {
        stage.name: [Path(dep.fs_path) for dep in stage.deps]
        for stage in Repo(str(fresh.folder)).index.stages
        if stage.name in STAGES
    }
    assert set(watched) == STAGES
    wrong = {}
    for module in shared_modules(fresh):
        name = "sae_repro." + module.removesuffix(".py").replace("/", ".")
        name = name.removesuffix(".__init__")
        path = source / "sae_repro" / module
        importing = {stage for stage in STAGES if name in closures[stage]}
        found = {
            stage
            for stage, deps in watched.items()
            if any(path.is_relative_to(dep) for dep in deps)
        }
        # an `__init__` without code of its own rides along in a folder that is wholly imported
        if found != importing and not (module.endswith("__init__.py") and importing <= found):
            wrong[module] = found
        if name in EXEMPT and found:
            wrong[module] = found
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("module", MEANT)
def test_known_modules_make_the_known_stages_stale(
    module: str, stale: Callable[..., set[str]]
) -> None:
    assert stale(module) == MEANT[module]


@pytest.mark.slow
def test_a_comment_restarts_stages_and_trains_nothing(finished: Checkout, tmp_path: Path) -> None:
    """DVC hashes files; a cell's key hashes what the compiler sees."""
    checkout = finished.copy(tmp_path / "commented")
    trained, evaluated = checkout.trained(), checkout.evaluated()
    for module in ("training/trainer.py", "numerics/intervals.py"):
        path = checkout.folder / "src" / "sae_repro" / module
        path.write_text(path.read_text() + "# a comment\n")
    ran = checkout.ran(checkout.repro("evaluate"))
    assert "train" in ran and "evaluate" in ran
    assert (checkout.trained(), checkout.evaluated()) == (trained, evaluated)


def test_known_modules_are_imported_by_the_known_stages() -> None:
    closures = {stage: closure(ROOT / "src", f"sae_repro.{stage}") for stage in STAGES}
    for module, stages in MEANT.items():
        name = "sae_repro." + module.removesuffix(".py").replace("/", ".")
        assert {stage for stage in STAGES if name in closures[stage]} == stages, module


def test_dvc_yaml_lists_what_stages_import() -> None:
    from sae_repro.cli.deps import with_imported_code

    for path in (ROOT / "dvc.yaml", ROOT / "tune" / "dvc.yaml"):
        assert with_imported_code(path.read_text(), ROOT / "src") == path.read_text(), (
            f"{path}: run `sae-repro deps --write`"
        )


def test_every_stage_depends_on_the_lock_and_none_on_all_code() -> None:
    for path in (ROOT / "dvc.yaml", ROOT / "tune" / "dvc.yaml"):
        for stage, entry in read_yaml(path)["stages"].items():
            assert "./requirements.lock" in entry["deps"], stage
            assert not {"./src", "./src/sae_repro"} & set(entry["deps"]), stage


def test_tune_depends_on_activations_alone() -> None:
    """A trial trains its own SAE, and is measured without the language model or concepts."""
    from sae_repro.params import read_yaml

    deps = read_yaml(ROOT / "tune" / "dvc.yaml")["stages"]["tune"]["deps"]
    assert {dep for dep in deps if dep.startswith("artifacts/")} == {"artifacts/extract"}
