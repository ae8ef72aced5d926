"""Throughput of a grid on two Ray nodes against one, beside processes of this machine without Ray.

    python -m benchmarks.two_nodes --rounds 3

Linux, root, at least two cores, and ray; `docs/cluster/two-nodes.sh` makes the nodes, of one CPU
each, with folders of their own. The stage `train` of one study of given activations runs in turn
with one process and two of `loky`, on one node and on two, each time in a copy in which nothing is
trained. Printed are a line per run, with what else the machine did just before, and a Markdown
table. Wall time is that of `dvc repro --force --single-item train`: DVC, the libraries' imports on
each node and what travels are in it, the start of the nodes is not.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sae_repro.files import read_json, sha256_file, sha256_folder
from sae_repro.numerics.processor import processor_name

ROOT = Path(__file__).resolve().parents[1]
ROWS, D, EXPANSION, EPOCHS = 200_000, 64, 32, 4
BUSY_SECONDS = 3.0

WAYS = {
    "one process": {"SAE_REPRO_EXECUTOR": "loky", "SAE_REPRO_JOBS": "1"},
    "two processes": {"SAE_REPRO_EXECUTOR": "loky", "SAE_REPRO_JOBS": "2"},
    "Ray, one node": {"ALONE": "1"},
    "Ray, two nodes": {},
}
"""Environment of each way to run the grid."""


@dataclass(frozen=True)
class Run:
    """One run of the grid."""

    way: str
    seconds: float
    """Of the command, by the clock on the wall."""
    trainings: float
    """Sum over cells of each one's own seconds."""
    busy: float
    """Percent of the machine's processor time that other work took just before."""
    yielding: float
    """And other work of lower priority (nice above 0), which gives way to this."""
    result: str
    """SHA-256 of the trained cells' folder."""


def declared(sha256: str) -> dict[str, Any]:
    """params.yaml: 12 cells alike in size on the activations of x.npy."""
    common = {"expansion": EXPANSION, "seeds": [0, 1, 2]}
    return {
        "root": ".", "seed": 0, "compute": {"bits": "portable"},
        "corpus": {"source": {"kind": "activations", "files": {"x.npy": sha256}},
                   "validation": 0.02, "calibration": 0.02},
        "subject": {"source": {"kind": "none"}},
        "extract": {"hooks": ["activations"], "threads": 1},
        "train": {"batch_size": 512, "epochs": EPOCHS, "checkpoint_every": 1000},
        "evaluate": {}, "judge": {}, "control": {"worlds": []},
        "compare": {"matched_l0": [8]}, "report": {}, "track": {"experiment": "two-nodes"},
        "recipes": {},
        "cells": {f"{activation}-{k}": {**common, "activation": activation, "k": k}
                  for activation in ("topk", "batchtopk") for k in (8, 16)},
    }  # fmt: skip


def make_study(folder: Path) -> None:
    """A study in `folder` with all before `train` done."""
    import numpy as np
    from ruamel.yaml import YAML

    from .shapes import BATCHES, Shape, activations

    env = environment({})
    subprocess.run([sys.executable, "-m", "sae_repro.cli", "init", folder], env=env, check=True)
    np.save(folder / "x.npy", activations(Shape(D, EXPANSION * D, ROWS // BATCHES, 1)))
    YAML().dump(declared(sha256_file(folder / "x.npy")), folder / "params.yaml")
    subprocess.run(["dvc", "repro", "extract"], cwd=folder, env=env, check=True)


def environment(of_way: Mapping[str, str]) -> dict[str, str]:
    """This one, with this interpreter and this checkout's code first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAE_REPRO")}
    bin_ = Path(sys.executable).parent
    path = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path), **of_way}  # fmt: skip


def run(study: Path, way: str, folder: Path) -> Run:
    """Train the grid in a copy of `study` in `folder`."""
    copy = folder / "study"
    shutil.copytree(study, copy, symlinks=True)
    command: list[str | Path] = ["dvc", "repro", "--force", "--single-item", "train"]
    on_ray = "SAE_REPRO_EXECUTOR" not in WAYS[way]
    env = environment(WAYS[way])
    if on_ray:
        command = [ROOT / "docs/cluster/two-nodes.sh", copy, *command]
        env["WORK"] = str(folder / "work")
    other = psutil.cpu_times_percent(BUSY_SECONDS)
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=copy, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seconds = time.monotonic() - start
    if done.returncode:
        sys.exit(f"{way}: failed\n{done.stdout}")
    if on_ray:
        nodes = 1 if "ALONE" in env else 2
        assert f"ray: {nodes} nodes, {nodes} jobs at a time" in done.stdout, done.stdout
        [took] = re.findall(r"the command took ([0-9.]+) s", done.stdout)
        seconds = float(took)
    costs = [read_json(path)["seconds"] for path in copy.glob(".sae-repro/costs/*.json")]
    assert len(costs) == 12, "every cell was trained here, once"
    result = sha256_folder(copy / "artifacts/train")
    return Run(way, seconds, sum(costs), other.user + other.system, other.nice, result)


def table(runs: Sequence[Run]) -> str:
    """A Markdown row per way: seconds, and the throughput as a multiple of its own half."""
    by_way = {way: [run for run in runs if run.way == way] for way in WAYS}
    median = {
        way: statistics.median(run.seconds for run in of_way)
        for way, of_way in by_way.items()
        if of_way
    }
    lines = [
        "| 12 cells on | runs | wall, s: median (each) | seconds of all trainings: median | "
        "throughput over one |",
        "|---|---:|---:|---:|---:|",
    ]
    single = None
    for way, of_way in by_way.items():
        if not of_way:
            continue
        single = way if "one" in way else single
        ratio = "" if single in (None, way) else f"{median[single] / median[way]:.2f}"
        each = ", ".join(f"{run.seconds:.1f}" for run in of_way)
        own = statistics.median(run.trainings for run in of_way)
        lines.append(
            f"| {way} | {len(of_way)} | {median[way]:.1f} ({each}) | {own:.1f} | {ratio} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the study, run it in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    asked = parser.parse_args(arguments)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="two-nodes-") as name:
        study = Path(name) / "study"
        make_study(study)
        for number in range(asked.rounds):
            # forth and back, so that no way always follows the same other
            for way in asked.ways if number % 2 == 0 else reversed(asked.ways):
                folder = Path(name) / "run"
                runs.append(found := run(study, way, folder))
                shutil.rmtree(folder)
                print(
                    f"{way}: {found.seconds:.1f} s; before it other work took {found.busy:.0f} % "
                    f"of the machine, and {found.yielding:.0f} % at a lower priority",
                    flush=True,
                )
    assert len({run.result for run in runs}) == 1, "the same bits each time"
    print(f"\n{processor_name()}, {os.cpu_count()} cores\n\n{table(runs)}")


if __name__ == "__main__":
    main()
