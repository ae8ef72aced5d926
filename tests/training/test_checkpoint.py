"""Checkpoints: whole or none, whatever became of the file, and wherever the process was killed."""

import json
import multiprocessing
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.cellstore import CellStore
from sae_repro.files import sha256_folder
from sae_repro.params import Cell, Train
from sae_repro.train.job import CellJob
from sae_repro.training import Journal, Trainer, load_checkpoint
from sae_repro.training.checkpoint import save_checkpoint

from ..damage import ALL, damage

HOOK = "blocks.0.hook_resid_post"
STATE = {
    "W_dec": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "silent_k": torch.arange(3),
    "lambda_": torch.tensor(0.5, dtype=torch.float64),
    "half": torch.ones(2, dtype=torch.bfloat16),
}
JOURNAL = Journal([{"step": 7, "loss": 0.1, "fvu": float("inf")}], [{"step": 3, "latents": [1]}])


def saved(folder: Path) -> Path:
    path = folder / "checkpoint"
    save_checkpoint(path, 8, STATE, JOURNAL)
    return path


def test_a_checkpoint_holds_what_was_saved(tmp_path: Path) -> None:
    loaded = load_checkpoint(saved(tmp_path))
    assert loaded is not None
    step, state, journal = loaded
    assert (step, journal) == (8, JOURNAL)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert load_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("kind", [*ALL, "step", "folder"])
def test_a_damaged_one_is_dropped_with_one_line(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path)
    if kind == "step":
        content = path.read_bytes()
        assert content.count(rb"\"step\": 8") == 1
        path.write_bytes(content.replace(rb"\"step\": 8", rb"\"step\": 9"))
    elif kind == "folder":  # as earlier versions left it
        path.unlink()
        path.mkdir()
        (path / "journal.json").touch()
    else:
        assert damage(path, kind)
    assert load_checkpoint(path) is None
    assert capsys.readouterr().err.splitlines() == (
        [] if kind == "delete" else [f"train: {path}: damaged checkpoint; this SAE starts afresh"]
    )
    assert not path.exists()
    save_checkpoint(path, 8, STATE, JOURNAL)
    assert load_checkpoint(path) is not None


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_and_no_cut_passes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = saved(tmp_path_factory.mktemp("checkpoint"))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    loaded = load_checkpoint(path)
    if loaded is None:
        return
    # what is left to flip decides nothing: spaces that fill up the header
    (size,) = struct.unpack("<Q", content[:8])
    assert place < 8 + size
    assert loaded[0] == 8 and loaded[2] == JOURNAL
    assert all(torch.equal(loaded[1][name], STATE[name]) for name in STATE)


def test_a_kill_while_one_is_replaced_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("os.fsync", "pathlib.Path.replace", "safetensors.torch.save_file"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(name, die)
            save_checkpoint(path, 16, STATE, JOURNAL)
        loaded = load_checkpoint(path)
        assert loaded is not None and loaded[0] == 8


def test_a_cell_whose_checkpoint_is_damaged_ends_with_the_same_bits(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = cell_job(make_store(train=1024), tmp_path)
    job(lambda step: None)
    undisturbed = sha256_folder(job.store / job.key)
    step_of = Trainer._step

    def die(self: Trainer, step: int, x_nd: torch.Tensor) -> object:
        if step == 12:
            raise KeyboardInterrupt
        return step_of(self, step, x_nd)

    for kind in ALL:
        other = cell_job(job.activations, tmp_path / kind)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "_step", die)
            other(lambda step: None)
        assert damage(other.checkpoint, kind)
        other(lambda step: None)
        assert sha256_folder(other.store / other.key) == undisturbed


def cell_job(activations: Path, state: Path) -> CellJob:
    """Training of a small cell, with a checkpoint after every step."""
    cell = Cell(expansion=2, penalty="l1", lambda_=0.02, revival="resample", resample_every=5)
    return CellJob(
        name="cell", cell=cell, hook=HOOK, seed=0, key="key", activations=activations,
        settings=Train(batch_size=64, epochs=1, log_every=4, checkpoint_every=1),
        store=state / "cells", checkpoint=state / "checkpoint", metadata={},
    )  # fmt: skip


def go(job: CellJob, ready: Any) -> None:
    """Train in a process of its own; `ready` is set when it begins."""
    torch.set_num_threads(1)
    ready.set()
    job(lambda step: None)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_change_no_bit(make_store: Callable[..., Path], tmp_path: Path) -> None:
    """SIGKILL at random instants: in steps, in a checkpoint's replacement, in the last rename."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sae_repro.training", "sae_repro.train.makers.trained"])
    activations, rng, kills, ends = make_store(train=1024), random.Random(7), 0, 0

    def run(job: CellJob, seconds: float | None) -> bool:
        """Whether it came to its end within `seconds`; it is killed else."""
        ready = context.Event()
        process = context.Process(target=go, args=(job, ready))
        process.start()
        ready.wait()
        process.join(seconds)
        ended = not process.is_alive()
        process.kill()
        process.join()
        assert not ended or process.exitcode == 0
        return ended

    job = cell_job(activations, tmp_path / "undisturbed")
    assert run(job, None)
    start = time.monotonic()
    assert run(cell_job(activations, tmp_path / "timed"), None)
    whole = time.monotonic() - start
    undisturbed = sha256_folder(job.store / job.key)
    while kills < 100:
        job = cell_job(activations, tmp_path / f"killed-{ends}")
        longest = whole / 2
        while not run(job, rng.uniform(0, longest)):
            kills += 1
            longest *= 1.1  # a machine with more to do than before gets to the end, too
        ends += 1
        assert CellStore(job.store).find(job.key) is not None
        assert sha256_folder(job.store / job.key) == undisturbed
    print(f"{kills} kills in {ends} trainings")
    assert json.loads((job.store / job.key / "train.json").read_text())["status"] == "ok"
