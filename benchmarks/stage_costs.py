"""The cost of each stage of a study: wall time, CPU time, peak memory, as a Markdown table.

    python benchmarks/stage_costs.py [dvc.yaml]     # studies/smollm2-news/dvc.yaml

Runs one `dvc repro` of the pipeline in this checkout, as a user would, and reads from what DVC
prints where a stage begins: a stage's cost is that up to the next one, with what DVC does between
them. What is up to date costs nothing, so run it where nothing has run yet. Memory is the largest
sum over DVC and all its processes, shared pages counted once (PSS), sampled once a second: the
sampling itself takes time from the stage.
"""

import os
import platform
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
BEGINS = re.compile(r"Running stage '(?:.*:)?([^:']+)'")
STARTING = "dvc, until its first stage"


@dataclass
class Cost:
    """Of one stage."""

    stage: str
    wall: float = 0.0
    cpu: float = 0.0
    """Seconds of all processes, as far as they have ended."""
    peak: float = 0.0
    """MiB."""


class Run:
    """A `dvc repro` on its way, and the costs of its stages so far."""

    def __init__(self, pipeline: str) -> None:
        bin_ = Path(sys.executable).parent  # also where the environment is not activated
        env = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
        self._process = psutil.Popen(["dvc", "repro", pipeline], cwd=ROOT, env=env, text=True,
                                     stdout=subprocess.PIPE)  # fmt: skip
        self.costs = [Cost(STARTING)]
        self._begun = time.monotonic(), 0.0

    def follow(self) -> int:
        """Wait for the end; DVC's exit code."""
        ended = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(ended,))
        sampler.start()
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := BEGINS.match(line):
                self._turn(_spent(self._process))
                self.costs.append(Cost(found[1]))
        before = os.times()
        code: int = self._process.wait()
        after = os.times()
        self._turn(sum(after[2:4]) - sum(before[2:4]))
        ended.set()
        sampler.join()
        return code

    def _turn(self, cpu: float) -> None:
        """End the stage that is running; `cpu` are the seconds of DVC and its children by now."""
        (start, spent), now = self._begun, time.monotonic()
        self.costs[-1].wall, self.costs[-1].cpu = now - start, cpu - spent
        self._begun = now, cpu

    def _sample(self, ended: threading.Event) -> None:
        while not ended.wait(1.0):
            cost = self.costs[-1]
            cost.peak = max(cost.peak, _memory(self._process) / 2**20)


def _spent(process: psutil.Process) -> float:
    """CPU seconds of a process, and of those of its children that have ended."""
    spent: float = sum(process.cpu_times()[:4])
    return spent


def _memory(process: psutil.Process) -> int:
    """Bytes in use by a process and its descendants."""
    total = 0
    try:
        processes = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    for one in processes:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue  # it ended between the listing and the look
    return total


def main(pipeline: str) -> None:
    """Run and print."""
    run = Run(pipeline)
    if run.follow():
        sys.exit(f"{run.costs[-1].stage} failed: dvc repro {pipeline} says why")
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores\n")
    print("| stage | wall, s | CPU, s | peak memory, MiB |\n|---|---|---|---|")
    for cost in run.costs:
        print(f"| {cost.stage} | {cost.wall:.0f} | {cost.cpu:.0f} | {cost.peak:.0f} |")
    wall, cpu = (sum(getattr(cost, name) for cost in run.costs) for name in ("wall", "cpu"))
    peak = max(cost.peak for cost in run.costs)
    print(f"| **all** | **{wall:.0f}** | **{cpu:.0f}** | **{peak:.0f}** |")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["dvc.yaml"])
