"""The command `parallel`: one cell on several processes, into the store of finished cells.

Without torchrun the command starts the processes itself, on this machine. Under torchrun, which may
be on many, it is one of them.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.errors import StudyError, did_you_mean

if TYPE_CHECKING:
    from sae_repro.parallel.ranks import Distributed
    from sae_repro.params import Cell, Study
    from sae_repro.train.job import CellJob

GRACE = 20.0
"""Seconds in which the others of a lost rank end by themselves."""
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def parallel(
    cell: Annotated[str, typer.Argument(help="A cell with micro_batches or latent_shards.")],
    ranks: Annotated[int, typer.Option(min=1, help="Processes to start on this machine.")] = 2,
    footprint: Annotated[
        bool, typer.Option("--footprint", help="Show memory and traffic, computed; train nothing.")
    ] = False,
    study: Annotated[Path, typer.Option(help="Folder that holds params.yaml.")] = Path(),
) -> None:
    """Train one large cell on several processes.

    The trained cell goes into the store, from which `dvc repro` takes it. The bits depend on the
    parts into which params.yaml divides the cell, not on the number of processes. Activations must
    be extracted first. torchrun starts processes on several machines.

    Examples:

    sae-repro parallel big --ranks 4

    sae-repro parallel big --footprint

    torchrun --nproc-per-node 4 -m sae_repro.cli parallel big
    """
    from sae_repro.params import load

    loaded = load(study / "params.yaml")
    chosen = _chosen(loaded, cell)
    if footprint:
        for line in _footprint_lines(loaded, chosen):
            echo(line)
        return
    if set(TORCHRUN) <= set(os.environ):
        _check_ranks(cell, chosen, int(os.environ["WORLD_SIZE"]))
        os.chdir(study)
        for line in _as_rank(cell, chosen):
            echo(line)
        return
    _check_ranks(cell, chosen, ranks)
    for path in (study / "dvc.yaml", study / "artifacts" / "extract" / "manifest.json"):
        if not path.is_file():
            raise StudyError(f"{path}: missing; run `dvc repro extract` in the study's folder")
    command = [sys.executable, "-m", "sae_repro.cli", "parallel", cell, "--study", str(study)]
    _start(command, ranks)


def _chosen(study: "Study", name: str) -> "Cell":
    if name not in study.cells:
        raise StudyError(f"{name}: no cell has such a name{did_you_mean(name, study.cells)}")
    return study.cells[name]


def _check_ranks(name: str, cell: "Cell", ranks: int) -> None:
    if cell.kind != "trained" or cell.parts == 1:
        raise StudyError(
            f"cells.{name}: has no parts to share; set micro_batches (every process holds the "
            "whole cell) or latent_shards (each its own latents)"
        )
    if cell.parts % ranks:
        possible = [str(2**i) for i in range(cell.parts.bit_length())]
        raise StudyError(
            f"cells.{name}: {cell.parts} parts can't be shared by {ranks} processes: start "
            + " or ".join(possible)
        )


def _footprint_lines(study: "Study", cell: "Cell") -> Iterator[str]:
    from sae_repro.cli.footprint import table

    d_in = study.d_in_of(cell)
    if d_in is None:
        raise StudyError("--footprint: params.yaml does not say how wide the cell's hook is")
    yield (
        f"computed, per process: D = {d_in:,}, K = {cell.width(d_in):,}, batches of "
        f"{study.train.batch_size:,}"
    )
    yield table(cell, d_in, study.train.batch_size)


def _start(command: Sequence[str], number: int) -> None:
    """Run `command` as so many ranks on this machine; StudyError once one of them has failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    try:
        for rank in range(number):
            place = (rank, number, rank, "127.0.0.1", port)
            environment = os.environ | dict(zip(TORCHRUN, map(str, place), strict=True))
            ranks.append(subprocess.Popen(command, env=environment))
        failed = _first_failed(ranks)
        if failed is None:
            return
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(rank.poll() is None for rank in ranks):
            time.sleep(0.1)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
                process.wait()
    code = ranks[failed].returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed (exit code {code})"
    raise StudyError(
        f"parallel: rank {failed} of {number} {how}, and all have ended; nothing was stored. The "
        "same command starts again, from the last checkpoint where there is one"
    )


def _first_failed(ranks: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """The rank that failed first, once one has; None once all have finished well."""
    while True:
        codes = [rank.poll() for rank in ranks]
        for rank, code in enumerate(codes):
            if code is not None and code < 0:
                return rank  # ended from outside: the others' errors follow from it
        for rank, code in enumerate(codes):
            if code:
                return rank
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.05)


def _as_rank(name: str, cell: "Cell") -> Iterator[str]:
    """One process of several, in the study's folder."""
    from sae_repro.numerics.kernels import choose
    from sae_repro.params import load

    study = load("params.yaml")
    choose(study.compute.bits)
    from sae_repro.cellstore import CellStore
    from sae_repro.contents import check
    from sae_repro.numerics.determinism import prepare
    from sae_repro.parallel.ranks import joined
    from sae_repro.stage import STATE, StageContext, declared_params
    from sae_repro.train import jobs_of

    context = StageContext("train", declared_params("train"), Path(study.root))
    check(context.artifacts("extract"), "manifest.json")
    prepare(device=study.train.device, threads=study.train.threads)
    store = CellStore(STATE / "cells")
    jobs = jobs_of(context, store, {name: cell})
    with joined(study.train.device) as ranks:
        for job in jobs.values():
            _check_same(job, ranks)
            if line := _made(job, store.folder, ranks):
                yield line


def _check_same(job: "CellJob", ranks: "Distributed") -> None:
    """StudyError where another rank would make another cell: other code, inputs or parameters."""
    import torch

    own = torch.frombuffer(bytearray(job.key.encode()), dtype=torch.uint8).to(job.settings.device)
    if any(not torch.equal(other, own) for other in ranks.gather([own])):
        raise StudyError(
            f"rank {ranks.rank}: {job.name}: the ranks differ in code, libraries, "
            "parameters or activations"
        )


def _made(job: "CellJob", folder: Path, ranks: "Distributed") -> str:
    """Make a cell into the store unless it is there; a line on it, of the first rank."""
    import torch

    from sae_repro.cellstore import CellStore
    from sae_repro.train.job import line_of
    from sae_repro.train.makers.trained import make

    def told(wanted: bool) -> bool:
        """What the first rank says."""
        own = torch.tensor([wanted], dtype=torch.uint8, device=job.settings.device)
        return bool(ranks.gather([own])[0].item())

    if ranks.rank:
        if told(False):
            make(job, None, lambda step: None, ranks=ranks)
        return ""
    with CellStore(folder).making(job.key) as into:
        if told(into is not None):
            make(job, into, lambda step: None, ranks=ranks)
    return f"{line_of(job.name, folder / job.key)}; {ranks.number} ranks"
