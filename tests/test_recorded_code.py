"""`sae-repro code`: the code on which stages depend, compared with that in src/."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.errors import StudyError
from sae_repro.installation import check_recorded_code

PACKAGE = {
    "__init__.py": "",
    "one/__init__.py": "from sae_repro.a import x",
    "two.py": "y = 2",
    "a.py": "x = 1",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a checkout with two stages, their code recorded, in the working folder."""
    for name, code in PACKAGE.items():
        path = tmp_path / "src/sae_repro" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    (tmp_path / "code").mkdir()
    outs = [{f"code/{stage}.txt": {"cache": False}} for stage in ("one", "two")]
    with (tmp_path / "code/dvc.yaml").open("w") as file:
        YAML().dump({"stages": {"code": {"outs": outs}}}, file)
    monkeypatch.chdir(tmp_path)
    assert invoke("--write") == (0, "")
    return tmp_path


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["code", *arguments])
    return result.exit_code, result.output


def test_a_stage_with_other_code_is_listed_with_the_files_that_differ(root: Path) -> None:
    assert invoke() == (0, "every stage has the code that is recorded in code/\n")
    (root / "src/sae_repro/a.py").write_text("x = 1  # for a reason\n")
    assert invoke()[0] == 0
    (root / "src/sae_repro/a.py").write_text("x = 3\n")
    (root / "src/sae_repro/one/data.md").write_text("words\n")
    assert invoke() == (1, "one: sae_repro/a.py, sae_repro/one/data.md\n")
    check_recorded_code(root, "two")
    with pytest.raises(
        StudyError, match=r"code/one\.txt: not of the code in .*src: sae_repro/a\.py"
    ):
        check_recorded_code(root, "one")
    assert invoke("--write") == (0, "")
    assert invoke()[0] == 0
    check_recorded_code(root, "one")


def test_a_stage_that_was_never_recorded_is_listed(root: Path) -> None:
    (root / "code/two.txt").unlink()
    assert invoke() == (1, "two: sae_repro/two.py\n")
    check_recorded_code(root, "two")  # DVC has refused by then: a dependency is missing


def test_code_that_no_longer_parses_is_named(root: Path) -> None:
    (root / "src/sae_repro/a.py").write_text("x = (\n")
    result = CliRunner().invoke(app, ["code"])
    assert isinstance(result.exception, StudyError)
    assert "src/sae_repro/a.py: line 1: " in str(result.exception)


def test_outside_a_checkout_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["code"])
    assert isinstance(result.exception, StudyError)
    assert "root of a checkout" in str(result.exception)
