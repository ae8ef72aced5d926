"""`sae-repro deps`: dvc.yaml lists the code that its stages import."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.cli.deps import with_imported_code
from sae_repro.cli.pipelines import check_copy
from sae_repro.errors import StudyError

ROOT = Path(__file__).resolve().parents[1]

BEFORE = """\
# The pipeline.
stages:
  one:
    desc: text → numbers
    cmd: python one.py   # two spaces more
    # what it needs
    deps:
      - ${root}/requirements.lock
      # its code
      - ${root}/src/sae_repro/gone.py
      - ${root}/src/sae_repro/b.py  # draws numbers
      - artifacts/zero
    outs: [artifacts/one,   {a: {persist: true}}]

  two:
    deps:
        - artifacts/one
        - ${root}/requirements.lock
    params: [seed]
  three:
    deps: # nothing of the house
    - artifacts/two"""

AFTER = """\
# The pipeline.
stages:
  one:
    desc: text → numbers
    cmd: python one.py   # two spaces more
    # what it needs
    deps:
      - ${root}/requirements.lock
      # its code
      - ${root}/src/sae_repro/a.py
      - ${root}/src/sae_repro/b.py  # draws numbers
      - ${root}/src/sae_repro/one
      - artifacts/zero
    outs: [artifacts/one,   {a: {persist: true}}]

  two:
    deps:
        - artifacts/one
        - ${root}/requirements.lock
        - ${root}/src/sae_repro/two
    params: [seed]
  three:
    deps: # nothing of the house
    - ${root}/src/sae_repro/b.py
    - ${root}/src/sae_repro/three.py
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
        "dvc.yaml: one: - ${root}/src/sae_repro/gone.py",
        "dvc.yaml: one: + ${root}/src/sae_repro/a.py",
        "dvc.yaml: one: + ${root}/src/sae_repro/one",
        "dvc.yaml: two: + ${root}/src/sae_repro/two",
        "dvc.yaml: three: + ${root}/src/sae_repro/b.py",
        "dvc.yaml: three: + ${root}/src/sae_repro/three.py",
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
    assert "      - ${root}/src/sae_repro/two\n" in written
    assert (root / "dvc.yaml").read_text() == AFTER


def test_a_stage_can_start_at_modules_of_its_own(root: Path) -> None:
    starts = {"one": ("sae_repro.three", "sae_repro.b")}
    text = with_imported_code(BEFORE, root / "src", starts)
    assert YAML(typ="safe").load(text)["stages"]["one"]["deps"] == [
        "${root}/requirements.lock",
        "${root}/src/sae_repro/b.py",
        "${root}/src/sae_repro/three.py",
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


def with_a_study(root: Path) -> Path:
    """studies/mine of a repository whose dvc.yaml is right."""
    (root / "dvc.yaml").write_text(AFTER)
    (root / "stages").mkdir()
    folder = root / "studies" / "mine"
    folder.mkdir(parents=True)
    return folder / "dvc.yaml"


def as_link(copy: Path) -> None:
    copy.symlink_to("../../dvc.yaml")


def as_other_text(copy: Path) -> None:
    copy.write_text(AFTER + "# mine\n")


@pytest.mark.parametrize(
    ("make", "says"),
    [(as_link, "a link, which DVC can't read"), (as_other_text, "differs from the root's")],
)
def test_copies_in_studies_are_compared_and_renewed(
    root: Path, make: Callable[[Path], None], says: str
) -> None:
    copy = with_a_study(root)
    make(copy)
    with pytest.raises(StudyError, match=says) as caught:
        check_copy(copy.parent, root)
    assert "`sae-repro deps --write`" in str(caught.value)
    code, output = invoke("dvc.yaml")
    assert code == 1 and output.startswith("studies/mine/dvc.yaml: ") and says in output
    assert invoke("dvc.yaml", "--write")[0] == 0
    assert not copy.is_symlink() and copy.read_text() == AFTER
    check_copy(copy.parent, root)
    assert invoke("dvc.yaml")[0] == 0


def test_copies_follow_the_code_of_the_root(root: Path) -> None:
    copy = with_a_study(root)
    copy.write_text(BEFORE)
    (root / "dvc.yaml").write_text(BEFORE)
    assert "studies" not in invoke("dvc.yaml")[1]
    invoke("dvc.yaml", "--write")
    assert copy.read_text() == (root / "dvc.yaml").read_text() == AFTER


def test_a_study_without_a_copy_or_with_a_wrong_root_is_refused(root: Path) -> None:
    copy = with_a_study(root)
    with pytest.raises(StudyError, match=r"mine/dvc\.yaml: missing; renew it by `cp "):
        check_copy(copy.parent, root)
    with pytest.raises(StudyError, match=r"no dvc\.yaml there; name the repository's root"):
        check_copy(copy.parent, copy.parent / "..")
    check_copy(root, root)
