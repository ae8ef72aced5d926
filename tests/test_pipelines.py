"""`sae-repro pipelines`: a study's dvc.yaml is a copy of the root's."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.cli.pipelines import check_copy, seen_from
from sae_repro.errors import StudyError

TEXT = """\
# The pipeline.
stages:
  one:
    desc: text → numbers
    cmd: python ./stages/one.py   # two spaces more
    # what it needs
    deps:
      - ./requirements.lock
      - ./code/one.txt  # its code
      - artifacts/zero
    outs: [artifacts/one,   {a: {persist: true}}]
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a repository, in the working folder."""
    (tmp_path / "dvc.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["pipelines", *arguments])
    return result.exit_code, result.output


def test_outside_the_root_the_error_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["pipelines"])
    assert isinstance(result.exception, StudyError)
    assert "repository's root" in str(result.exception)


def with_a_study(root: Path, name: str = "mine", place: str = "../..") -> Path:
    """dvc.yaml, not there yet, of a study."""
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
    copy.write_text(TEXT)


def not_at_all(copy: Path) -> None:
    pass


COPY = TEXT.replace("- ./", "- ../../").replace("python ./", "python ../../")


def test_a_copy_leads_to_the_root_and_is_else_the_same() -> None:
    text = "# from ./ on\ncmd: python ./a.py ../b ./c.py x/./d\ndeps: [a./b, artifacts/./e]\n"
    assert seen_from("../../..", text) == (
        "# from ../../../ on\ncmd: python ../../../a.py ../b ../../../c.py x/./d\n"
        "deps: [a./b, artifacts/./e]\n"
    )
    assert seen_from(".", TEXT) == TEXT


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
    assert "`sae-repro pipelines --write studies/mine/dvc.yaml`" in str(caught.value)
    code, output = invoke(named)
    assert code == 1 and output.startswith("studies/mine/dvc.yaml: ") and says in output
    assert invoke(named, "--write")[0] == 0
    assert not copy.is_symlink() and copy.read_text() == COPY
    assert (root / "dvc.yaml").read_text() == TEXT
    check_copy(copy.parent, "../..")
    assert invoke(named)[0] == 0
    assert invoke(str(root / named))[0] == 0


def test_copies_follow_the_root(root: Path) -> None:
    copy = with_a_study(root)
    copy.write_text(COPY)
    later = TEXT.replace("artifacts/zero", "artifacts/none")
    (root / "dvc.yaml").write_text(later)
    assert invoke("dvc.yaml") == (
        1, "studies/mine/dvc.yaml: differs from the root's, with the paths that lead there\n"
    )  # fmt: skip
    assert invoke("dvc.yaml", "--write")[0] == 0
    assert copy.read_text() == COPY.replace("artifacts/zero", "artifacts/none")
    assert (root / "dvc.yaml").read_text() == later


def test_a_study_in_a_folder_of_studies_sees_the_root_from_there(root: Path) -> None:
    copy = with_a_study(root, "many/mine", "../../..")
    with pytest.raises(
        StudyError, match=r"`sae-repro pipelines --write studies/many/mine/dvc\.yaml`"
    ):
        check_copy(copy.parent, "../../..")
    invoke("studies/many/mine/dvc.yaml", "--write")
    assert copy.read_text() == seen_from("../../..", TEXT) == COPY.replace("../../", "../../../")
    check_copy(copy.parent, "../../..")


def test_a_search_of_a_study_is_a_copy_too_where_it_has_one(root: Path) -> None:
    study = with_a_study(root).parent
    (study / "dvc.yaml").write_text(COPY)
    text = "stages:\n  two:\n    deps:\n      - ./code/two.txt\n"
    for folder in (root, study):
        (folder / "tune").mkdir()
    (root / "tune/dvc.yaml").write_text(text)
    (study / "tune/params.yaml").write_text("tune: {}\n")
    assert invoke()[0] == 0
    check_copy(study, "../..")
    (study / "tune/dvc.yaml").write_text(text)
    with pytest.raises(StudyError, match=r"pipelines --write studies/mine/tune/dvc\.yaml"):
        check_copy(study, "../..")
    assert invoke("dvc.yaml")[0] == 0
    for arguments in ((), ("tune/dvc.yaml",), ("studies/mine/tune/dvc.yaml",)):
        code, output = invoke(*arguments)
        assert code == 1 and output.startswith("studies/mine/tune/dvc.yaml: differs")
    invoke("--write")
    assert "- ../../code/two.txt\n" in (study / "tune/dvc.yaml").read_text()
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
    result = CliRunner().invoke(app, ["pipelines", *named, "--write"])
    assert isinstance(result.exception, StudyError)
    assert f"params.yaml: root = {place}" in str(result.exception)
    assert not copy.exists()


@pytest.mark.parametrize("path", ["studies/other/dvc.yaml", "studies/mine/params.yaml", "x.yaml"])
def test_what_is_no_pipeline_is_refused(root: Path, path: str) -> None:
    with_a_study(root)
    result = CliRunner().invoke(app, ["pipelines", path, "--write"])
    assert isinstance(result.exception, StudyError)
    assert f"{path}: not found" in str(result.exception)
