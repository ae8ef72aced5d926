"""`sae-repro deps`: dvc.yaml lists the code that its stages import."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.cli.deps import with_imported_code
from sae_repro.cli.pipelines import check_copy, seen_from
from sae_repro.errors import StudyError

ROOT = Path(__file__).resolve().parents[1]

BEFORE = """\
# The pipeline.
stages:
  one:
    desc: text → numbers
    cmd: python ./stages/one.py   # two spaces more
    # what it needs
    deps:
      - ./requirements.lock
      # its code
      - ./src/sae_repro/gone.py
      - ./src/sae_repro/b.py  # draws numbers
      - artifacts/zero
    outs: [artifacts/one,   {a: {persist: true}}]

  two:
    deps:
        - artifacts/one
        - ./requirements.lock
    params: [seed]
  three:
    deps: # nothing of the house
    - artifacts/two"""

AFTER = """\
# The pipeline.
stages:
  one:
    desc: text → numbers
    cmd: python ./stages/one.py   # two spaces more
    # what it needs
    deps:
      - ./requirements.lock
      # its code
      - ./src/sae_repro/a.py
      - ./src/sae_repro/b.py  # draws numbers
      - ./src/sae_repro/one
      - artifacts/zero
    outs: [artifacts/one,   {a: {persist: true}}]

  two:
    deps:
        - artifacts/one
        - ./requirements.lock
        - ./src/sae_repro/two
    params: [seed]
  three:
    deps: # nothing of the house
    - ./src/sae_repro/b.py
    - ./src/sae_repro/three.py
    - artifacts/two
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a repository with three stages, in the working folder."""
    package = tmp_path / "src" / "sae_repro"
    for name, code in {
        "__init__.py": "",
        "one/__init__.py": "from sae_repro.a import x",
        "two/__init__.py": "def run(): ...",
        "three.py": "from sae_repro.b import y",
        "a.py": "from sae_repro.b import y",
        "b.py": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(code)
    (tmp_path / "dvc.yaml").write_text(BEFORE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["deps", *arguments])
    return result.exit_code, result.output


def test_check_lists_differences_and_writes_no_file(root: Path) -> None:
    code, output = invoke("dvc.yaml")
    assert code == 1
    assert output.splitlines() == [
        "dvc.yaml: one: - ./src/sae_repro/gone.py",
        "dvc.yaml: one: + ./src/sae_repro/a.py",
        "dvc.yaml: one: + ./src/sae_repro/one",
        "dvc.yaml: two: + ./src/sae_repro/two",
        "dvc.yaml: three: + ./src/sae_repro/b.py",
        "dvc.yaml: three: + ./src/sae_repro/three.py",
    ]
    assert (root / "dvc.yaml").read_text() == BEFORE


def test_code_is_written_and_every_other_line_kept(root: Path) -> None:
    assert invoke("dvc.yaml", "--write")[0] == 0
    assert (root / "dvc.yaml").read_text() == AFTER
    assert invoke("dvc.yaml")[0] == 0
    assert with_imported_code(AFTER, root / "src") == AFTER


def test_both_pipelines_are_compared_by_default(root: Path) -> None:
    (root / "tune").mkdir()
    (root / "tune" / "dvc.yaml").write_text("stages:\n  two:\n    deps:\n      - artifacts/one\n")
    invoke("--write")
    written = (root / "tune" / "dvc.yaml").read_text()
    assert "      - ./src/sae_repro/two\n" in written
    assert (root / "dvc.yaml").read_text() == AFTER


def test_a_stage_can_start_at_modules_of_its_own(root: Path) -> None:
    starts = {"one": ("sae_repro.three", "sae_repro.b")}
    text = with_imported_code(BEFORE, root / "src", starts)
    assert YAML(typ="safe").load(text)["stages"]["one"]["deps"] == [
        "./requirements.lock",
        "./src/sae_repro/b.py",
        "./src/sae_repro/three.py",
        "artifacts/zero",
    ]


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ("  two:\n    deps: [a, b]\n", "two: needs `deps`, each in a line of its own"),
        ("  two:\n    cmd: x\n", "two: needs `deps`"),
        ("  four:\n    deps:\n      - a\n", "sae_repro.four: no such module"),
    ],
)
def test_dvc_yaml_that_cannot_be_edited_is_named(root: Path, stages: str, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        with_imported_code(f"stages:\n{stages}", root / "src")


def test_outside_the_root_the_error_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["deps"])
    assert isinstance(result.exception, StudyError)
    assert "repository's root" in str(result.exception)


@pytest.mark.parametrize("path", ["dvc.yaml", "tune/dvc.yaml"])
def test_the_pipelines_of_this_repository_can_be_written(path: str) -> None:
    """Only code in `deps` differs, and a second time nothing does."""
    text = (ROOT / path).read_text()
    after = with_imported_code(text, ROOT / "src")
    assert with_imported_code(after, ROOT / "src") == after
    old, new = (YAML(typ="safe").load(t)["stages"] for t in (text, after))
    for stage in old:
        kept = [dep for dep in old[stage].pop("deps") if "/src/" not in dep]
        deps = new[stage].pop("deps")
        assert [dep for dep in deps if "/src/" not in dep] == kept
        assert len(deps) > len(kept)
    assert new == old


def with_a_study(root: Path, name: str = "mine", place: str = "../..") -> Path:
    """dvc.yaml, not there yet, of a study in a repository whose own is right."""
    (root / "dvc.yaml").write_text(AFTER)
    (root / "stages").mkdir(exist_ok=True)
    folder = root / "studies" / name
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(f"root: {place}\n")
    return folder / "dvc.yaml"


def as_link(copy: Path) -> None:
    copy.symlink_to("../../dvc.yaml")


def as_other_text(copy: Path) -> None:
    copy.write_text(COPY + "# mine\n")


def as_the_original(copy: Path) -> None:
    copy.write_text(AFTER)


def not_at_all(copy: Path) -> None:
    pass


COPY = AFTER.replace("- ./", "- ../../").replace("python ./", "python ../../")


def test_a_copy_leads_to_the_root_and_is_else_the_same() -> None:
    text = "# from ./ on\ncmd: python ./a.py ../b ./c.py x/./d\ndeps: [a./b, artifacts/./e]\n"
    assert seen_from("../../..", text) == (
        "# from ../../../ on\ncmd: python ../../../a.py ../b ../../../c.py x/./d\n"
        "deps: [a./b, artifacts/./e]\n"
    )
    assert seen_from(".", AFTER) == AFTER


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (as_link, "a link, which DVC can't read"),
        (as_other_text, "differs from the root's"),
        (as_the_original, "differs from the root's"),
        (not_at_all, "missing"),
    ],
)
@pytest.mark.parametrize("named", ["dvc.yaml", "studies/mine/dvc.yaml"])
def test_copies_in_studies_are_compared_and_renewed(
    root: Path, make: Callable[[Path], None], says: str, named: str
) -> None:
    copy = with_a_study(root)
    make(copy)
    with pytest.raises(StudyError, match=says) as caught:
        check_copy(copy.parent, "../..")
    assert "`sae-repro deps --write studies/mine/dvc.yaml`" in str(caught.value)
    code, output = invoke(named)
    assert code == 1 and output.startswith("studies/mine/dvc.yaml: ") and says in output
    assert invoke(named, "--write")[0] == 0
    assert not copy.is_symlink() and copy.read_text() == COPY
    assert (root / "dvc.yaml").read_text() == AFTER
    check_copy(copy.parent, "../..")
    assert invoke(named)[0] == 0
    assert invoke(str(root / named))[0] == 0


def test_copies_follow_the_code_of_the_root(root: Path) -> None:
    copy = with_a_study(root)
    copy.write_text(seen_from("../..", BEFORE))
    (root / "dvc.yaml").write_text(BEFORE)
    assert "studies" not in invoke("dvc.yaml")[1]
    invoke("dvc.yaml", "--write")
    assert copy.read_text() == COPY
    assert (root / "dvc.yaml").read_text() == AFTER


def test_a_study_in_a_folder_of_studies_sees_the_root_from_there(root: Path) -> None:
    copy = with_a_study(root, "many/mine", "../../..")
    with pytest.raises(StudyError, match=r"`sae-repro deps --write studies/many/mine/dvc\.yaml`"):
        check_copy(copy.parent, "../../..")
    invoke("studies/many/mine/dvc.yaml", "--write")
    assert copy.read_text() == seen_from("../../..", AFTER) == COPY.replace("../../", "../../../")
    check_copy(copy.parent, "../../..")


def test_a_search_of_a_study_is_a_copy_too_where_it_has_one(root: Path) -> None:
    study = with_a_study(root).parent
    (study / "dvc.yaml").write_text(COPY)
    text = "stages:\n  two:\n    deps:\n      - ./src/sae_repro/two\n"
    for folder in (root, study):
        (folder / "tune").mkdir()
    (root / "tune/dvc.yaml").write_text(text)
    (study / "tune/params.yaml").write_text("tune: {}\n")
    assert invoke()[0] == 0
    check_copy(study, "../..")
    (study / "tune/dvc.yaml").write_text(text)
    with pytest.raises(StudyError, match=r"deps --write studies/mine/tune/dvc\.yaml"):
        check_copy(study, "../..")
    assert invoke("dvc.yaml")[0] == 0
    for arguments in ((), ("tune/dvc.yaml",), ("studies/mine/tune/dvc.yaml",)):
        code, output = invoke(*arguments)
        assert code == 1 and output.startswith("studies/mine/tune/dvc.yaml: differs")
    invoke("--write")
    assert "- ../../src/sae_repro/two\n" in (study / "tune/dvc.yaml").read_text()
    check_copy(study, "../..")


def test_a_study_without_a_copy_or_with_a_wrong_root_is_refused(root: Path) -> None:
    copy = with_a_study(root)
    with pytest.raises(StudyError, match=r"mine/dvc\.yaml: missing; renew it by "):
        check_copy(copy.parent, "../..")
    with pytest.raises(StudyError, match=r"no dvc\.yaml there; name the repository's root"):
        check_copy(copy.parent, "..")
    check_copy(root, ".")


@pytest.mark.parametrize("named", [(), ("dvc.yaml",), ("studies/mine/dvc.yaml",)])
@pytest.mark.parametrize("place", ["..", ".", "/tmp", "../../.."])
def test_no_copy_is_written_of_another_root_than_the_study_s(
    root: Path, place: str, named: tuple[str, ...]
) -> None:
    copy = with_a_study(root, place=place)
    (root / "tune").mkdir()
    (root / "tune/dvc.yaml").write_text("stages: {}\n")
    result = CliRunner().invoke(app, ["deps", *named, "--write"])
    assert isinstance(result.exception, StudyError)
    assert f"params.yaml: root = {place}" in str(result.exception)
    assert not copy.exists()


@pytest.mark.parametrize("path", ["studies/other/dvc.yaml", "studies/mine/params.yaml", "x.yaml"])
def test_what_is_no_pipeline_is_refused(root: Path, path: str) -> None:
    with_a_study(root)
    result = CliRunner().invoke(app, ["deps", path, "--write"])
    assert isinstance(result.exception, StudyError)
    assert f"{path}: not found" in str(result.exception)
