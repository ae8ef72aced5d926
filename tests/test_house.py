"""Conventions of the repository: names of stages, the import contract, module docstrings."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sae_repro.cli.pipelines import check_copy
from sae_repro.params import Section, load, read_yaml

ROOT = Path(__file__).resolve().parents[1]
PIPELINES = [ROOT / "dvc.yaml", ROOT / "tune/dvc.yaml"]
PIPELINE: dict[str, Any] = {
    stage: entry for path in PIPELINES for stage, entry in read_yaml(path)["stages"].items()
}
STAGES = list(PIPELINE)
PIPELINE_OF = {stage: path for path in PIPELINES for stage in read_yaml(path)["stages"]}
PACKAGE = ROOT / "src" / "sae_repro"


def declared(stage: str) -> set[str]:
    """Dotted keys of params.yaml, and of another file where dvc.yaml names one."""
    keys: set[str] = set()
    for item in PIPELINE[stage]["params"]:
        keys |= {item} if isinstance(item, str) else set().union(*item.values())
    return keys


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_its_six_places(stage: str) -> None:
    script = (ROOT / "stages" / f"{stage}.py").read_text()
    assert len(script.splitlines()) <= 30
    assert f'stage("{stage}"' in script
    assert f"from sae_repro.{stage} import run" in script
    assert PIPELINE[stage]["cmd"] == f"python ./stages/{stage}.py"
    assert (PACKAGE / stage / "__init__.py").is_file()
    schema = importlib.import_module(f"sae_repro.params.{stage}")
    assert issubclass(getattr(schema, stage.title()), Section)
    assert list((ROOT / "tests" / stage).glob("test_*.py")), f"tests/{stage}: no tests"
    assert stage in {p.partition(".")[0] for p in declared(stage)}
    assert stage in read_yaml(PIPELINE_OF[stage].with_name("params.yaml")), f"params.yaml: {stage}"
    outs = [next(iter(o)) if isinstance(o, dict) else o
            for o in [*PIPELINE[stage]["outs"], *PIPELINE[stage].get("metrics", [])]]  # fmt: skip
    if stage in ("compare", "report"):  # what people read stands in git
        assert all(out.startswith("reports/") for out in outs)
    elif stage == "judge":  # what was answered outlives a re-run, which deletes artifacts
        assert outs == ["artifacts/judge", "judge/answers.jsonl"]
    elif stage == "tune":  # likewise, beside the file that says what is searched
        assert all(out.startswith("tune/") for out in outs)
    else:
        assert outs == [f"artifacts/{stage}"]


def test_no_stage_without_a_place_and_no_place_without_a_stage() -> None:
    assert {p.stem for p in (ROOT / "stages").glob("*.py")} == set(STAGES)
    with_run = {
        p.parent.name
        for p in PACKAGE.glob("*/__init__.py")
        if re.search(r"^def run\(", p.read_text(), re.M)
    }
    assert with_run == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_only_parameters_it_declares(stage: str) -> None:
    """`context.section` and `context.value` name their keys as literals."""
    known = declared(stage)
    for call in ast.walk(ast.parse((PACKAGE / stage / "__init__.py").read_text())):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        if call.func.attr in ("section", "value") and call.args:
            key = call.args[-1]
            assert isinstance(key, ast.Constant) and key.value in known


def test_the_import_contract_holds() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks here, or is to track; none where this is no checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


STUDIES = [ROOT, *(path.parent for path in tracked("studies/*/params.yaml"))]


@pytest.mark.parametrize("study", STUDIES, ids=lambda p: p.name)
def test_every_study_is_valid_and_has_the_pipeline(study: Path) -> None:
    loaded = load(study / "params.yaml")
    assert (study / loaded.root).resolve() == ROOT
    assert not (study / "dvc.yaml").is_symlink()
    check_copy(study, loaded.root)
    assert read_yaml(study / "dvc.yaml")["stages"] == {
        stage: {
            **entry,
            "cmd": f"python {loaded.root}/stages/{stage}.py",
            "deps": [re.sub(r"^\./", f"{loaded.root}/", dep) for dep in entry["deps"]],
        }
        for stage, entry in read_yaml(ROOT / "dvc.yaml")["stages"].items()
    }


def test_the_repository_s_other_pipeline_is_that_of_the_code() -> None:
    """It writes what the others depend on, and computes no result."""
    others = {*tracked("dvc.yaml", "*/dvc.yaml")} - {*tracked("studies/*/dvc.yaml")}
    assert others == {*PIPELINES, ROOT / "code/dvc.yaml"}


def test_no_file_in_git_is_a_link() -> None:
    """DVC reads no link in a commit; one at a dvc.yaml makes every commit unreadable to it."""
    assert [str(path) for path in tracked() if path.is_symlink()] == []


def test_templates_of_studies_are_none_to_dvc() -> None:
    """DVC loads every file of these names, wherever it lies."""
    assert [
        path for path in tracked("studies/templates")
        if path.name == "dvc.yaml" or path.suffix == ".dvc"
    ] == []  # fmt: skip


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_a_module_docstring_names_the_module(path: Path) -> None:
    """It begins with a noun phrase, not with a question that the reader must answer first."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert not re.match(r"(What|Which|Who|Whose|Where|When|Why|How|Whether|That)\b", docstring)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 320


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Imports inside functions count; those for type annotations alone do not run."""
    from graphlib import CycleError, TopologicalSorter

    import grimp

    graph = grimp.build_graph("sae_repro", exclude_type_checking_imports=True)
    imports = {
        module: graph.find_modules_directly_imported_by(module) - {module}
        for module in graph.modules
    }
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
