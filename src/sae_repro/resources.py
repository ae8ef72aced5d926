"""Shares of a cluster's node that a job takes: `cpus=2 gpus=0.5 memory=8GB`, say."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sae_repro.errors import StudyError

RESOURCES = "SAE_REPRO_RESOURCES"
UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Resources:
    """A job's share of a node, by which Ray decides how many it has room for."""

    cpus: float = 1
    gpus: float = 0
    memory: int = 0
    """Bytes; 0: not counted."""

    def fit(self, of_node: Mapping[str, float]) -> int:
        """Jobs for which a node has room, by Ray's names of what it has in all."""
        shares = (("CPU", self.cpus), ("GPU", self.gpus), ("memory", self.memory))
        # a little more, so that three thirds are a whole
        return min(int(of_node.get(k, 0) / share + 1e-9) for k, share in shares if share)

    def of_a_task(self) -> dict[str, Any]:
        """As Ray's options of a task."""
        options: dict[str, Any] = {"num_cpus": self.cpus}
        if self.gpus:
            options["num_gpus"] = self.gpus
        if self.memory:
            options["memory"] = self.memory
        return options

    def __str__(self) -> str:
        parts = [f"cpus={self.cpus:g}"]
        if self.gpus:
            parts.append(f"gpus={self.gpus:g}")
        if self.memory:
            parts.append(f"memory={self.memory / 1e9:g}GB")
        return " ".join(parts)


def resources() -> Resources:
    """Those of SAE_REPRO_RESOURCES; a CPU where it is not set. StudyError where it says no such."""
    setting = os.environ.get(RESOURCES, "")
    found: dict[str, float] = {}
    for part in re.split(r"[\s,]+", setting.strip()) if setting.strip() else []:
        match = re.fullmatch(r"(cpus|gpus|memory)=([0-9]+(?:\.[0-9]+)?)(MB|GB|TB)?", part)
        if match is None or (match[1] == "memory") != (match[3] is not None) or match[1] in found:
            raise StudyError(
                f"{RESOURCES} = {setting}: {part} is none of cpus=2, gpus=0.5, memory=8GB, each "
                "at most once"
            )
        found[match[1]] = float(match[2]) * UNITS.get(match[3], 1)
    asked = Resources(
        cpus=found.get("cpus", 1), gpus=found.get("gpus", 0), memory=int(found.get("memory", 0))
    )
    if not asked.cpus or any(
        share > 1 and not math.isclose(share, round(share)) for share in (asked.cpus, asked.gpus)
    ):
        raise StudyError(
            f"{RESOURCES} = {setting}: cpus must be over 0, and shares above 1 whole numbers"
        )
    return asked
