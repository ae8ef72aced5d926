"""`sae-repro diff` on a small repository of reports: what moved, what turned, and why."""

import csv
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.errors import StudyError
from sae_repro.revisions import changes, reasons, snapshot
from sae_repro.revisions.numbers import numbers

VERDICT = """\
# Verdict

**Which SAE?** At L0 8 **topk**; at L0 16 undecided among all 2. (Training length was not varied.)

**Can its features be believed?** Yes (0.500 [0.400, 0.600] of topk).

## resid, 8×

| L0 | FVU |
"""


@dataclass
class Study:
    """A repository with a study whose recorded results a test writes by hand."""

    root: Path
    place: str = "."
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    verdict: str = VERDICT
    params: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    data: str = "1" * 32
    torch: str = "2.12.0"
    out: str = "a" * 32
    listed: bool = True
    """Whether the stage depends on a code/train.txt, or on each file of its code, as once."""

    @property
    def folder(self) -> Path:
        return self.root / self.place

    def write(self) -> None:
        up = "." if self.place == "." else "/".join([".."] * len(Path(self.place).parts))
        tables = self.folder / "reports/tables"
        tables.mkdir(parents=True, exist_ok=True)
        _csv(
            tables / "cells.csv", [{"cell": c, "status": "ok", **r} for c, r in self.cells.items()]
        )
        _csv(tables / "claims.csv", self.claims)
        (tables / "verdict.md").write_text(self.verdict)
        (self.folder / "reports/metrics.json").write_text(json.dumps({c: {} for c in self.cells}))
        (self.root / "requirements.lock").write_text(f"torch=={self.torch}\n")
        deps = [{"path": f"{up}/src/sae_repro/{n}", "md5": md5} for n, md5 in self.code.items()]
        if self.listed:
            path = self.root / "code/train.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{h}  sae_repro/{n}\n" for n, h in self.code.items()))
            md5 = hashlib.md5(path.read_bytes()).hexdigest()
            deps = [{"path": f"{up}/code/train.txt", "md5": md5}]
        deps.append({"path": "text.jsonl", "md5": self.data})
        train = {"deps": deps, "params": {"params.yaml": self.params}, "outs":
                 [{"path": "artifacts/train", "md5": self.out}]}  # fmt: skip
        with (self.folder / "dvc.lock").open("w") as file:
            YAML().dump({"schema": "2.0", "stages": {"train": train}}, file)
        (self.folder / "params.yaml").write_text(f"root: {up}\n")

    def commit(self, message: str) -> None:
        self.write()
        git(self.root, "add", "-A")
        git(self.root, "commit", "-qm", message)

    def diff(self, *arguments: str) -> list[str]:
        done = CliRunner().invoke(app, ["diff", *arguments, "--study", str(self.folder)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output.splitlines()


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        cwd=folder, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def _csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def fvu(value: float, half: float = 0.01, seeds: int = 3) -> dict[str, float]:
    return {"seeds": seeds, "fvu": value, "fvu_low": value - half, "fvu_high": value + half}


def claim(name: str, verdict: str, value: float, expected: str = "> 0") -> dict[str, Any]:
    return {"claim": name, "verdict": verdict, "value": value, "low": value - 0.1,
            "high": value + 0.1, "expected": expected}  # fmt: skip


@pytest.fixture(
    params=[(".", True), ("studies/small", True), ("studies/small", False)],
    ids=["root", "below", "files of src"],
)
def study(tmp_path: Path, request: pytest.FixtureRequest) -> Study:
    """Two cells, two claims, recorded once."""
    git(tmp_path, "init", "-q")
    made = Study(
        tmp_path,
        request.param[0],
        listed=request.param[1],
        cells={"topk": fvu(0.1), "relu": fvu(0.2)},
        claims=[claim("wide", "undecided", 0.05), claim("deep", "reproduced", 0.5)],
        params={"seed": 0, "text": {"sha256": "d" * 64}, "recipes": {"one": {"lr": 1e-3}},
                "cells": {"topk": {"recipe": "one", "k": 3}, "relu": {"lambda": 0.1}}},
        code={"train": "b" * 32, "files.py": "c" * 32},
    )  # fmt: skip
    made.commit("Record the study")
    return made


def test_a_study_recorded_alike_is_one_line(study: Study) -> None:
    (line,) = study.diff("HEAD")
    assert "no number moved beyond its interval" in line
    assert line.startswith("HEAD → the working tree: ")
    assert "2 numbers with an interval, the same to the last digit" in line


def test_a_change_within_intervals_is_counted_and_not_listed(study: Study) -> None:
    study.cells["topk"] = fvu(0.115)
    study.verdict = VERDICT.replace("0.500 [0.400, 0.600]", "0.512 [0.411, 0.600]")
    study.write()
    (line,) = study.diff("HEAD")
    assert "1 of 2 changed within it" in line


def test_numbers_beyond_their_intervals_are_named_with_both_values(study: Study) -> None:
    study.cells["topk"] = fvu(0.13)
    study.cells["relu"] = fvu(0.1, seeds=1)
    study.commit("Record it again")
    lines = study.diff("HEAD~1", "HEAD")
    assert "2 of 2 numbers moved beyond their intervals (0 within)" in lines[0]
    assert "  FVU ↓: 1 higher (worse), 1 lower (better)" in lines
    assert "    topk: 0.100 [0.0900, 0.110] → 0.130 [0.120, 0.140]" in lines
    moved = "    relu: 0.200 [0.190, 0.210] → 0.100 [0.0900, 0.110]"
    assert f"{moved} (one seed: another may turn it)" in lines


def test_claims_and_sentences_that_turned_are_told(study: Study) -> None:
    study.claims[0] = claim("wide", "reproduced", 0.3)
    study.claims[1] = claim("deep", "reproduced", 0.6)  # another number, the same verdict
    study.claims.append(claim("new", "refuted", -0.4))
    study.verdict = VERDICT.replace("at L0 16 undecided among all 2", "at L0 16 **relu**")
    study.write()
    lines = study.diff("HEAD")
    assert "1 claim turned and 1 new or gone; 1 sentence of the verdict changed" in lines[0]
    assert (
        "  wide: undecided → reproduced: 0.0500 [-0.0500, 0.150], claimed > 0 → "
        "0.300 [0.200, 0.400], claimed > 0"
    ) in lines
    assert "  new: new: refuted, -0.400 [-0.500, -0.300], claimed > 0" in lines
    assert not any("deep" in line for line in lines)
    start = lines.index("verdict")
    assert lines[start + 1 : start + 3] == [
        "  - Which SAE? at L0 16 undecided among all 2.", "  + Which SAE? at L0 16 relu."
    ]  # fmt: skip


def test_cells_added_removed_and_failed_are_told(study: Study) -> None:
    study.cells = {"topk": fvu(0.1) | {"status": "diverged"}, "gated": fvu(0.2)}
    study.write()
    lines = study.diff("HEAD")
    start = lines.index("cells")
    assert lines[start + 1 : start + 4] == [
        "  topk: ok → diverged", "  added: gated", "  removed: relu"
    ]  # fmt: skip


def test_the_reasons_are_params_data_versions_and_the_stage_s_code(study: Study) -> None:
    study.cells["topk"] = fvu(0.3)
    study.params["recipes"]["one"]["lr"] = 3e-3
    study.params["seed"] = 7
    study.params["cells"]["other"] = {"recipe": "one"}
    study.params["text"] = {"sha256": "e" * 64}
    study.code["train"] = "d" * 32
    study.code["deadline.py"] = "d" * 32
    study.data = "2" * 32
    study.torch = "2.13.0"
    study.out = "f" * 32
    study.commit("Train with another lr")
    lines = study.diff("HEAD~1", "HEAD")
    assert any(line.startswith("    topk: ") and line.endswith("(its settings: lr)")
               for line in lines)  # fmt: skip
    assert lines[lines.index("why") + 1 :] == [
        "  params",
        "    seed: 0 → 7",
        "    recipes.one.lr: 0.001 → 0.003",
        "  data: text.sha256, text.jsonl",
        "  versions: torch 2.12.0 → 2.13.0",
        "  code",
        "    train: of 3 paths 1 changed, 1 new: train, deadline.py",
        "  other bytes come from: train",
        "  recorded by",
        f"    {git(study.root, 'log', '-1', '--format=%h').strip()} Train with another lr",
    ]


def test_numbers_that_move_without_any_reason_point_to_the_machine(study: Study) -> None:
    study.cells["topk"] = fvu(0.3)
    study.commit("Record it elsewhere")
    lines = study.diff("HEAD~1")
    assert any("params, data, code and versions are the same" in line for line in lines)


def test_the_exit_code_says_only_when_asked_whether_something_changed(study: Study) -> None:
    study.cells["topk"] = fvu(0.3)
    study.write()
    arguments = ["diff", "HEAD", "--study", str(study.folder)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--exit-code"]).exit_code == 1
    study.cells["topk"] = fvu(0.1)
    study.write()
    assert CliRunner().invoke(app, [*arguments, "--exit-code"]).exit_code == 0


def test_nothing_is_checked_out(study: Study) -> None:
    study.cells["topk"] = fvu(0.3)
    study.commit("Record it again")
    (study.folder / "note.txt").write_text("mine")
    was = git(study.root, "status", "--porcelain"), git(study.root, "rev-parse", "HEAD")
    study.diff("HEAD~1", "HEAD")
    assert (git(study.root, "status", "--porcelain"), git(study.root, "rev-parse", "HEAD")) == was


@pytest.mark.parametrize("revision", ["no-such", "--output=x", "HEAD:params.yaml"])
def test_what_is_no_revision_is_refused(study: Study, revision: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no revision of"), snapshot(study.folder, revision):
        pass
    assert not (tmp_path / "x").exists()


def test_a_revision_without_results_is_refused_with_what_to_do(study: Study) -> None:
    git(study.root, "rm", "-rq", "--cached", str(study.folder / "reports"))
    git(study.root, "commit", "-qm", "Without results")
    with (
        pytest.raises(StudyError, match=r"no results were recorded.*git log"),
        snapshot(study.folder, "HEAD"),
    ):
        pass


def test_a_folder_that_is_no_study_is_named_as_that(study: Study) -> None:
    elsewhere = study.root / "notes"
    elsewhere.mkdir()
    with (
        pytest.raises(StudyError, match=r"notes/params.yaml: no such file; run in a study's"),
        snapshot(elsewhere, "HEAD"),
    ):
        pass


def test_a_damaged_lock_is_one_line(study: Study) -> None:
    (study.folder / "dvc.lock").write_text("stages: [1]\n")
    git(study.root, "commit", "-qam", "Damage it")
    with (
        snapshot(study.folder, "HEAD~1") as before,
        snapshot(study.folder, "HEAD") as after,
        pytest.raises(StudyError, match=r"^HEAD: dvc.lock: not as DVC writes it"),
    ):
        reasons(study.folder, before, after)


def test_every_interval_of_this_repository_s_tables_is_read() -> None:
    """Each row's ends, of `x_low` and `low` alike, belong to a number that lies between them."""
    reports = Path(__file__).resolve().parents[2] / "reports"
    found = numbers(reports)
    bounded = {place: n for place, n in found.items() if n.low is not None}
    assert len(bounded) > 1_000
    by_cell = json.loads((reports / "metrics.json").read_text())
    for cell, metrics in by_cell.items():
        for name in [name for name in metrics if f"{name}_low" in metrics]:
            number = bounded[cell, name]
            assert number.value == metrics[name]
            assert (number.low, number.high) == (metrics[f"{name}_low"], metrics[f"{name}_high"])


@settings(max_examples=20, deadline=None)
@given(
    values=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
    halves=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
)
def test_moved_is_symmetric_and_means_no_common_point(
    values: tuple[float, float], halves: tuple[float, float], tmp_path_factory: Any
) -> None:
    sides = []
    for value, half in zip(values, halves, strict=True):
        folder = tmp_path_factory.mktemp("side")
        study = Study(folder, cells={"topk": fvu(value, half)})
        study.write()
        sides.append(folder)
    for pair in (sides, sides[::-1]):
        with snapshot(pair[0], None) as before, snapshot(pair[1], None) as after:
            moved = changes(before, after).moved
        ends = [(v - h, v + h) for v, h in zip(values, halves, strict=True)]
        disjoint = ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0]
        assert bool(moved) == disjoint


def test_damaged_tables_are_one_line_and_other_columns_are_no_fault(study: Study) -> None:
    tables = study.folder / "reports/tables"
    _csv(tables / "control.csv", [{"name": "tree", "f1": 0.5, "f1_low": 0.4, "f1_high": 0.6}])
    _csv(tables / "verdict.csv", [{"what": "a", "fvu": 0.5}])
    assert numbers(study.folder / "reports")["control: tree", "f1"].high == 0.6
    (tables / "cells.csv").write_bytes(b"cell,fvu\na,\xff\n")
    with pytest.raises(StudyError, match="can't be read as a table"):
        study.diff("HEAD")
    _csv(tables / "cells.csv", [{"other": 1}])
    assert any("removed: topk, relu" in line for line in study.diff("HEAD"))
    (study.folder / "reports/metrics.json").write_text("[]")
    with pytest.raises(StudyError, match="not a JSON object"):
        study.diff("HEAD")
