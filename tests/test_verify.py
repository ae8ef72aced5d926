"""Two checkouts compared: identical, or the place named."""

import csv
import hashlib
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.verify import verify
from sae_repro.verify.causes import causes
from sae_repro.verify.files import MACHINES
from sae_repro.verify.machines import confirmed, record, this_machine

from .damage import ALL, damage, mutants


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
    "cells.md: line 1, number 1: 0.125 against 0.128": text("reports/cells.md", "0.125", "0.128"),
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
    verdict = verify(ours, theirs)
    files = len([path for path in ours.rglob("*") if path.is_file()]) + 1
    assert verdict.size_of_differences().startswith(f"2 of {files} files differ")
    places = {d.file: d.where for d in verdict.differences}
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


def test_whole_numbers_of_an_array_are_compared_one_by_one(tmp_path: Path) -> None:
    """A float's difference is relative to its array; a count or a name has no rounding."""
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    for folder, small in ((ours, 2), (theirs, 1)):
        np.save(folder / "artifacts/train/a.npy", np.array([small, 10**9]))
    (d,) = verify(ours, theirs).differences
    assert d.relative == pytest.approx(0.5)


def test_a_text_that_differs_is_no_small_difference_beside_a_number_that_does(
    tmp_path: Path,
) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    text("reports/cells.md", "topk 0.125\n", "topk 0.5\n")(ours)
    text("reports/cells.md", "topk 0.125\n", "relu 0.5000005\n")(theirs)
    (d,) = verify(ours, theirs).differences
    assert d.relative is None


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no artifacts or reports there"):
        verify(write(tmp_path / "a"), tmp_path)


@pytest.mark.parametrize("kind", ALL)
def test_a_damaged_file_is_a_difference_and_no_traceback(tmp_path: Path, kind: str) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    for path in [path for path in theirs.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        if damage(path, kind):
            for verdict in (verify(ours, theirs), verify(theirs, ours)):
                (d,) = verdict.differences
                assert d.file == path.relative_to(theirs).as_posix() and d.where
                assert "\n" not in d.where
        path.write_bytes(content)


def test_whatever_becomes_of_a_file_it_is_one_difference(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    for path in [path for path in theirs.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        for mutant in mutants(content, 50, path.name):
            path.write_bytes(mutant)
            differences = verify(ours, theirs).differences
            assert len(differences) == (mutant != content)
            assert all(d.where and "\n" not in d.where for d in differences)
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("reports/cells.csv", b"cell,fvu\ntopk,\0\xff\n"),
        ("reports/cells.csv", b'cell,fvu\n"' + b"x" * 200_000 + b'",1\n'),
        ("reports/metrics.json", b"[" * 100_000),
        ("reports/metrics.json", b'{"cell": ' + b"9" * 5000 + b"}"),
        ("artifacts/train/a.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', "),
        ("artifacts/train/w.safetensors", b"\xff" * 64),
        ("artifacts/train/t.parquet", b"PAR1" + b"\0" * 64 + b"PAR1"),
    ],
)
def test_an_odd_file_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    (theirs / file).write_bytes(content)
    (d,) = verify(ours, theirs).differences
    assert d.file == file and d.relative is None
    (theirs / file).unlink()
    (theirs / file).mkdir()
    (d,) = verify(ours, theirs).differences
    assert d.where == f"missing in {theirs}"


def test_what_machines_took_is_not_compared(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    for name in ("costs.csv", "machines.csv", "benchmarks/steps.csv"):
        (ours / "reports" / name).parent.mkdir(exist_ok=True)
        (ours / "reports" / name).write_text("1\n")
    assert not verify(ours, theirs).differences
    (ours / "reports/benchmarks.csv").write_text("1\n")
    assert len(verify(ours, theirs).differences) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_against_a_number_is_within_no_tolerance(
    tmp_path: Path, value: float
) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    np.save(theirs / "artifacts/train/a.npy", np.float32([[0, 1, 2], [3, value, 5]]))
    text("artifacts/train/m.jsonl", "1.25", json.dumps(value))(theirs)
    text("reports/metrics.json", "0.25", json.dumps(value))(theirs)
    text("reports/cells.csv", "0.125", str(value))(theirs)
    pd.DataFrame({"x": [value, 2.0], "t": ["a", "b"]}).to_parquet(
        theirs / "artifacts/train/t.parquet"
    )
    for one, other in ((ours, theirs), (theirs, ours)):
        differences = verify(one, other).differences
        assert len(differences) == 5
        assert [d.file for d in differences if d.relative is not None] == []


def test_nan_is_equal_to_nan_and_lists_are_compared_by_their_values(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    for folder, last in ((ours, 3), (theirs, 4)):
        frame = pd.DataFrame({"x": [np.nan], "tokens": [[1, 2]], "t": [None], "n": [last]})
        frame.to_parquet(folder / "artifacts/train/t.parquet")
    (d,) = verify(ours, theirs).differences
    assert d.where.startswith("column n: [0]: 3 against 4")
    frame.assign(tokens=[[1, 5]]).to_parquet(ours / "artifacts/train/t.parquet")
    (d,) = verify(ours, theirs).differences
    assert d.where == "column tokens: row 0: [1]: 5 against 2 (1 of 2 differ, by at most 3)"


def test_text_is_no_number(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    for folder, name in ((ours, "1e5"), (theirs, "100000")):
        text("reports/metrics.json", "0.25", json.dumps(name))(folder)
    (d,) = verify(ours, theirs).differences
    assert d.relative is None


def test_contents_are_named_where_nothing_else_differs(tmp_path: Path) -> None:
    ours, theirs = write(tmp_path / "a"), write(tmp_path / "b")
    for folder in (ours, theirs):
        seal(folder / "artifacts/train")
    (ours / "artifacts/train/contents.json").write_text("{}")
    (d,) = verify(ours, theirs).differences
    assert d.file == "artifacts/train/contents.json"
    npy(theirs)
    seal(theirs / "artifacts/train")
    verdict = verify(ours, theirs)
    assert [d.file for d in verdict.differences] == ["artifacts/train/a.npy"]
    assert verdict.within(1e-4)


def perturbed(value: float, relative: float) -> float:
    return value * (1 + relative)


def numbers(folder: Path, values: list[float], relative: float, at: set[int]) -> Path:
    """A study in each of whose formats stand `values`, those in the files `at` perturbed."""
    (folder / "artifacts").mkdir(parents=True)
    (folder / "reports").mkdir()
    changed = [perturbed(value, relative) for value in values]
    table = "| x |\n|:---|\n"
    writers: list[Callable[[list[float]], object]] = [
        lambda x: np.save(folder / "artifacts/a.npy", np.float64(x)),
        lambda x: save_file({"W": np.float64(x)}, folder / "artifacts/w.safetensors"),
        lambda x: pd.DataFrame({"x": x, "l": [[v] for v in x]}).to_parquet(
            folder / "artifacts/t.parquet"
        ),
        lambda x: (folder / "artifacts/m.jsonl").write_text(
            "".join(json.dumps({"x": v, "n": None}) + "\n" for v in x)
        ),
        lambda x: (folder / "reports/m.json").write_text(json.dumps({"x": x, "ok": True})),
        lambda x: (folder / "reports/c.csv").write_text("".join(f"{v!r}\n" for v in ["x", *x])),
        lambda x: (folder / "reports/c.md").write_text(
            table + "".join(f"| topk-x8-k3 {v!r}   |\n" for v in x)
        ),
        lambda x: (folder / "reports/c.tex").write_text(" & ".join(map(repr, x)) + r" \\\\"),
    ]
    for number, write_values in enumerate(writers):
        write_values(changed if number in at else values)
    return folder


FORMATS = 8
magnitudes = st.floats(1e-3, 1e6).map(lambda x: float(f"{x:.12g}"))


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(magnitudes | magnitudes.map(lambda x: -x), min_size=2, max_size=4),
    at=st.sets(st.integers(0, FORMATS - 1), min_size=1),
)
def test_a_tolerance_holds_for_rounding_in_any_format_and_never_for_nan(
    values: list[float], at: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        ours = numbers(Path(name) / "a", values, 0.0, set())
        theirs = numbers(Path(name) / "b", values, 1e-6, at)
        nan = numbers(Path(name) / "c", values, math.nan, at)
        for one, other in ((ours, theirs), (theirs, ours)):
            verdict = verify(one, other)
            assert len(verdict.differences) == len(at)
            assert verdict.within(1e-5) and not verdict.within(1e-7)
            assert all(d.numbers >= len(values) and d.largest for d in verdict.differences)
        for one, other in ((ours, nan), (nan, ours)):
            assert {d.relative for d in verify(one, other).differences} == {None}


@pytest.mark.parametrize(
    ("ours", "theirs", "relative"),
    [
        ("topk  0.125 |---|", "topk 0.126  |-----|", 0.0),  # both may be printed of 0.1255
        ("FVU 0.125", "FVU 0.127", 0.001 / 0.127),
        ("FVU 0.5", "FVU 0.5000005", 4e-7 / 0.5),
        ("1,173 documents", "1,174 documents", 1 / 1174),  # a count is not rounded
        ("λ = 1.0e-4", "λ = −1.0e-4", 1.9),
        ("x8-k16: 0.125", "x8-k16: nan", None),
        ("topk is lower", "topk is higher", None),
        ("all 3 of 4", "all 3", None),
        ('key "12e345"', 'key "12e999"', None),  # pieces of hashes
    ],
)
def test_texts_are_compared_by_their_numbers(
    tmp_path: Path, ours: str, theirs: str, relative: float | None
) -> None:
    for folder, content in (("a", ours), ("b", theirs)):
        text("reports/cells.md", "topk 0.125\n", content)(write(tmp_path / folder))
    (d,) = verify(tmp_path / "a", tmp_path / "b").differences
    assert d.kind == "printed"
    assert d.relative == (relative if relative is None else pytest.approx(relative, rel=1e-3))


def test_a_picture_does_not_decide_but_a_missing_one_does(tmp_path: Path) -> None:
    drawing = '<g id="m{}"><path d="M 1.5 {} L 2 3"/><use href="#m{}"/></g>'
    for name, content in (
        ("a", ("0a1b2c3d4e", 7.25, "0a1b2c3d4e")),
        ("b", ("f" * 10, 7.5, "f" * 10)),
    ):
        folder = write(tmp_path / name)
        (folder / "reports/f.svg").write_text(drawing.format(*content))
        (folder / "reports/f.png").write_bytes(name.encode())
    verdict = verify(tmp_path / "a", tmp_path / "b")
    assert {(d.file, d.kind) for d in verdict.differences} == {
        ("reports/f.svg", "picture"), ("reports/f.png", "picture"),
    }  # fmt: skip
    (drawn,) = [d for d in verdict.differences if d.file.endswith("svg")]
    assert drawn.where == "line 1, number 2: 7.25 against 7.5" and drawn.numbers == 1
    assert verdict.within(0.0)
    said = verdict.summary(0.0, "b")
    assert said.startswith("no number differs from b (9 files); 2 pictures of the same data: not")
    (tmp_path / "b/reports/f.png").unlink()
    assert not verify(tmp_path / "a", tmp_path / "b").within(1.0)


def test_other_code_is_named_by_its_modules_where_both_sides_have_what_they_locked(
    tmp_path: Path,
) -> None:
    sides = []
    for name, changed in (("here", "1"), ("there", "2")):
        folder = tmp_path / name
        (folder / "code").mkdir(parents=True)
        listing = f"{'0' * 64}  sae_repro/files.py\n{changed * 64}  sae_repro/train/job.py\n"
        (folder / "code/train.txt").write_text(listing)
        md5 = hashlib.md5(listing.encode()).hexdigest()
        (folder / "dvc.lock").write_text(
            f"stages:\n  train:\n    deps:\n    - {{path: ./code/train.txt, md5: {md5}}}\n"
        )
        (folder / "params.yaml").write_text("root: .\n")
        sides.append(folder)
    assert causes(*sides) == ["other code: src/sae_repro/train/job.py (train)"]
    (sides[1] / "code/train.txt").write_text("of another run\n")
    (said,) = causes(*sides)
    assert said.startswith("other code: code/train.txt (train)")


def test_a_line_of_machines_says_which_recorded_study_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another Python is another line of the same study, and replaces lines of an earlier one."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "params.yaml").write_text("compute: {bits: portable}\n")

    def recorded(python: str, study: str) -> list[tuple[str, ...]]:
        monkeypatch.setattr("platform.python_version", lambda: python)
        record(tmp_path, study, study, "identical")
        with (tmp_path / MACHINES).open(encoding="utf-8", newline="") as file:
            names = ("model", "python", "recorded", "study")
            return [tuple(line[name] for name in names) for line in csv.DictReader(file)]

    here = this_machine("portable").model
    assert recorded("3.11.2", "a") == [(here, "3.11.2", "a", "current")]
    both = [(here, python, "a", "current") for python in ("3.11.2", "3.11.7")]
    assert recorded("3.11.7", "a") == both
    assert recorded("3.11.2", "a") == both
    assert recorded("3.11.7", "b") == [(here, "3.11.7", "b", "current")]

    path = tmp_path / MACHINES
    header, line = path.read_text().splitlines()
    elsewhere = line.replace(f",{here},", ",another model,", 1)
    # as written before there was a column `study`
    path.write_text("\n".join(row.rpartition(",")[0] for row in (header, elsewhere, line)) + "\n")
    assert recorded("3.11.7", "b") == [
        (here, "3.11.7", "b", "current"), ("another model", "3.11.7", "b", "current")
    ]  # fmt: skip
    assert recorded("3.11.7", "c") == [
        (here, "3.11.7", "c", "current"), ("another model", "3.11.7", "b", "earlier")
    ]  # fmt: skip
    assert confirmed(tmp_path, "c") == {this_machine("portable").processor_id}
