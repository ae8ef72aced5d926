"""What a cell's key follows from."""

from pathlib import Path

import pytest

from sae_repro.cellstore import code_digest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one package, `models`, that has a subpackage."""
    package = tmp_path / "src" / "sae_repro"
    (package / "models" / "formats").mkdir(parents=True)
    (package / "models" / "a.py").write_text("a")
    (package / "models" / "formats" / "b.py").write_text("b")
    (package / "one.py").write_text("one")
    (tmp_path / "requirements.lock").write_text("torch==1")
    return tmp_path


@pytest.mark.parametrize("changed,counts", [
    ("src/sae_repro/models/a.py", True), ("src/sae_repro/one.py", True),
    ("requirements.lock", True), ("src/sae_repro/models/formats/b.py", False),
])  # fmt: skip
def test_a_key_follows_the_named_code_and_the_lock(root: Path, changed: str, counts: bool) -> None:
    """A converter of other libraries' folders must not retrain a grid."""
    before = code_digest(root, "models", "one.py")
    (root / changed).write_text("changed")
    assert (code_digest(root, "models", "one.py") != before) is counts


def test_what_is_asked_for_counts(root: Path) -> None:
    assert code_digest(root, "models") != code_digest(root, "models", "models/formats")
