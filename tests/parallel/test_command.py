"""`sae-repro parallel` as a user starts it: what the stage takes, and what a lost rank leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sae_repro.cli.parallel import parallel
from sae_repro.errors import StudyError
from sae_repro.files import sha256_folder

from ..params.test_check import STUDY

ROOT = Path(__file__).resolve().parents[2]
CELLS = {
    "batches": {"expansion": 4, "activation": "topk", "k": 3, "micro_batches": 2},
    "latents": {"expansion": 4, "activation": "topk", "k": 3, "latent_shards": 2},
    "whole": {"expansion": 4, "activation": "topk", "k": 3},
    "long": {"expansion": 4, "activation": "topk", "k": 3, "micro_batches": 2, "tokens": 10**9},
}


@pytest.fixture
def study(make_store: Callable[..., Path], tmp_path: Path) -> Path:
    make_store(name="artifacts/extract")
    for name in ("dvc.yaml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    train = {"batch_size": 64, "checkpoint_every": 20}
    params = {**STUDY, "root": ".", "train": train, "recipes": {}, "cells": CELLS}
    YAML().dump(params, tmp_path / "params.yaml")
    return tmp_path


def started(study: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "sae_repro.cli", *arguments, "--study", str(study)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["batches", "latents"])
def test_two_ranks_leave_in_the_store_what_one_does(cell: str, study: Path) -> None:
    """Under the same key, which is how the stage finds it."""
    folders = []
    for ranks in (2, 1):
        done = started(study, "parallel", cell, "--ranks", str(ranks))
        out, error = done.communicate()
        assert done.returncode == 0, error
        assert f"train: {cell}: 64 steps" in out and f"{ranks} rank" in out
        (made,) = [path for path in (study / ".sae-repro/cells").iterdir() if path.is_dir()]
        folders.append((made.name, sha256_folder(made)))
        made.rename(study / f"made-by-{ranks}")
    assert folders[0] == folders[1]


@pytest.mark.slow
def test_a_killed_rank_ends_all_in_one_line_that_names_it(study: Path) -> None:
    run = started(study, "parallel", "long", "--ranks", "2")
    checkpoints = study / ".sae-repro/checkpoints"
    deadline = time.monotonic() + 120
    while not (checkpoints.is_dir() and any(checkpoints.iterdir())):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    children = list(ranks_of(run.pid))
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    _, error = run.communicate(timeout=120)
    assert run.returncode == 2 and "Traceback" not in error
    assert "parallel: rank 1 of 2 was ended by SIGKILL, and all have ended" in error
    assert "rank 0: another rank is gone" in error
    assert not [path for path in (study / ".sae-repro/cells").iterdir() if path.is_dir()]


def ranks_of(parent: int) -> Iterator[int]:
    """The processes that `parent` started, in order."""
    for process in sorted(
        int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()
    ):
        try:
            status = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(status[1]) == parent:
            yield process


@pytest.mark.parametrize(
    ("cell", "ranks", "message"),
    [
        ("whole", 2, "cells.whole: has no parts to share"),
        ("batches", 4, "cells.batches: 2 parts can't be shared by 4 processes: start 1 or 2"),
        ("batch", 2, "batch: no cell has such a name; did you mean batches"),
    ],
)
def test_what_can_not_be_shared_is_refused(
    cell: str, ranks: int, message: str, study: Path
) -> None:
    with pytest.raises(StudyError, match=message):
        parallel(cell, ranks, footprint=False, study=study)
