"""Two checkouts compared: identical, or the place named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from sae_repro.errors import StudyError
from sae_repro.verify import verify


def write(folder: Path) -> Path:
    """A study's results in every format."""
    inner = folder / "artifacts" / "train"
    inner.mkdir(parents=True)
    (folder / "reports").mkdir()
    np.save(inner / "a.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    save_file({"W_dec": np.ones((2, 2), dtype=np.float32)}, inner / "w.safetensors")
    pd.DataFrame({"x": [1.0, 2.0], "t": ["a", "b"]}).to_parquet(inner / "t.parquet")
    (inner / "m.jsonl").write_text('{"step":0,"loss":1.5}\n{"step":1,"loss":1.25}\n')
    (folder / "reports" / "metrics.json").write_text(json.dumps({"cell": {"fvu": [0.5, 0.25]}}))
    (folder / "reports" / "cells.csv").write_text("cell,fvu\ntopk,0.125\nvanilla,0.5\n")
    (folder / "reports" / "cells.md").write_text("topk 0.125\n")
    return folder


def npy(folder: Path) -> None:
    np.save(folder / "artifacts/train/a.npy",
            np.float32([[0, 1, 2], [3, 4.0001, 5]]))  # fmt: skip


def tensor(folder: Path) -> None:
    w = np.ones((2, 2), dtype=np.float32)
    w[1, 0] = 3
    save_file({"W_dec": w}, folder / "artifacts/train/w.safetensors")


def parquet(folder: Path) -> None:
    pd.DataFrame({"x": [1.0, 2.0], "t": ["a", "c"]}).to_parquet(
        folder / "artifacts/train/t.parquet"
    )


def text(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        target = folder / path
        target.write_text(target.read_text().replace(old, new))

    return change


CHANGES = {
    "a.npy: array: [1, 1]: 4.0 against 4.0001": npy,
    "w.safetensors: tensor W_dec: [1, 0]: 1.0 against 3.0": tensor,
    "t.parquet: column t: row 1: b against c": parquet,
    "m.jsonl: line 2.loss: 1.25 against 1.2500001": text(
        "artifacts/train/m.jsonl", "1.25", "1.2500001"
    ),
    "metrics.json: cell.fvu[1]: 0.25 against 0.26": text("reports/metrics.json", "0.25", "0.26"),
    "cells.csv: line 3 (vanilla), column fvu: 0.5 against 0.6": text(
        "reports/cells.csv", "0.5", "0.6"
    ),
    "cells.md: byte 9: 35 against 36": text("reports/cells.md", "0.125", "0.126"),
}
NUMERIC = {"a.npy", "m.jsonl"}  # of these, by so little that 1e-4 covers it


def test_equal_results_are_identical(tmp_path: Path) -> None:
    verdict = verify(write(tmp_path / "a"), write(tmp_path / "b"))
    assert verdict.differences == []
    assert verdict.files == 7
    assert verdict.within(0.0)


@pytest.mark.parametrize("says", CHANGES)
def test_a_perturbed_number_is_named(says: str, tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    CHANGES[says](theirs)
    verdict = verify(ours, theirs)
    assert len(verdict.differences) == 1
    (d,) = verdict.differences
    assert f"{d.file.rpartition('/')[2]}: {d.where}".startswith(says)
    assert verdict.within(1e-4) == (says.partition(":")[0] in NUMERIC)
    assert not verdict.within(1e-9)


def test_files_of_one_side_only_are_named(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    (theirs / "reports/cells.md").unlink()
    (ours / "artifacts/train/a.npy").unlink()
    places = {d.file: d.where for d in verify(ours, theirs).differences}
    assert places == {
        "reports/cells.md": f"missing in {theirs}",
        "artifacts/train/a.npy": f"missing in {ours}",
    }


def test_another_shape_is_no_small_difference(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    np.save(theirs / "artifacts/train/a.npy", np.zeros((3, 2), dtype=np.float32))
    verdict = verify(ours, theirs)
    assert "float32[2, 3] against float32[3, 2]" in verdict.differences[0].where
    assert not verdict.within(1.0)


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no artifacts or reports there"):
        verify(write(tmp_path / "a"), tmp_path)
