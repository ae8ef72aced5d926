"""Two clones and a store that they share: what the first has made, the second doesn't make."""

import re
import shutil
from pathlib import Path

from sae_repro.files import sha256_folder

from .conftest import Run


def test_a_second_clone_trains_and_evaluates_nothing(
    finished_clone: Path, run: Run, tmp_path: Path
) -> None:
    team = tmp_path / "team"
    team.mkdir()
    outputs = []
    for name in ("first", "second"):
        folder = tmp_path / name
        shutil.copytree(finished_clone, folder, symlinks=True)
        shutil.rmtree(folder / ".sae-repro")
        for stage in ("train", "evaluate"):
            before = sha256_folder(folder / "artifacts" / stage)
            shutil.rmtree(folder / "artifacts" / stage)
            done = run(
                *("dvc", "repro", "--force", "--single-item", stage),
                cwd=folder,
                SAE_REPRO_STORE=str(team),
            )
            outputs.append(done.stdout)
            assert sha256_folder(folder / "artifacts" / stage) == before
            assert "warning" not in done.stderr
    trained, evaluated, *second = outputs
    assert "train: 2 to make of 2 SAEs" in trained and "evaluate: 2 to make" in evaluated
    for stage, said in zip(("train", "evaluate"), second, strict=True):
        assert f"{stage}: 2 of 2 from the shared store, as made before" in said
    assert not (tmp_path / "second/.sae-repro/costs").exists(), "it trained"
    listed = run(
        "sae-repro", "store", "--verify", cwd=tmp_path / "second", SAE_REPRO_STORE=str(team)
    )
    assert re.search(r"verified: (\d+) of \1 entries are whole", listed.stdout)
