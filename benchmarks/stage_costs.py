"""The cost of each stage of a study: wall time, CPU time, peak memory, as a Markdown table.

    python benchmarks/stage_costs.py [dvc.yaml]     # studies/smollm2-news/dvc.yaml

Runs `dvc repro` stage by stage in this checkout; what is up to date costs nothing, so run it where
nothing has run yet. Memory is the largest sum over DVC and all its processes, shared pages counted
once (PSS), sampled once a second: the sampling itself takes time from the stage.
"""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


def measure(pipeline: str, stage: str) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, peak MiB) of `dvc repro --single-item pipeline:stage`."""
    before, start = os.times(), time.monotonic()
    bin_ = Path(sys.executable).parent  # also where the environment is not activated
    env = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    process = psutil.Popen(["dvc", "repro", "--single-item", f"{pipeline}:{stage}"],
                           cwd=ROOT, env=env, stdout=subprocess.DEVNULL)  # fmt: skip
    peak = 0
    while True:
        try:
            process.wait(timeout=1.0)
            break
        except psutil.TimeoutExpired:
            peak = max(peak, _memory(process))
    if process.returncode:
        sys.exit(f"{stage} failed: dvc repro {pipeline}:{stage} says why")
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return time.monotonic() - start, cpu, peak / 2**20


def _memory(process: psutil.Process) -> int:
    """Bytes in use by a process and its descendants."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue  # it ended between the listing and the look
    return total


def main(pipeline: str) -> None:
    """Run and print."""
    stages = YAML(typ="safe", pure=True).load(ROOT / pipeline)["stages"]
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores\n")
    print("| stage | wall, s | CPU, s | peak memory, MiB |\n|---|---|---|---|")
    rows = []
    for stage in stages:
        rows.append(measure(pipeline, stage))
        print("| {} | {:.0f} | {:.0f} | {:.0f} |".format(stage, *rows[-1]), flush=True)
    wall, cpu, peak = (list(column) for column in zip(*rows, strict=True))
    print(f"| **all** | **{sum(wall):.0f}** | **{sum(cpu):.0f}** | **{max(peak):.0f}** |")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["dvc.yaml"])
