"""Facts that decide bits on a node, held against those of the machine with the study.

Another code or other libraries refuse: a result would carry the key of what it was not made with.
Another processor warns where bits follow from it (`compute.bits: native`, or no AVX2 on it).
"""

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sae_repro.closure import PACKAGE, code_digest
from sae_repro.errors import StudyError
from sae_repro.files import sha256_folder
from sae_repro.installation import SOURCE, libraries
from sae_repro.numerics.kernels import in_use
from sae_repro.numerics.processor import cpuinfo, processor_name

KINDS = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "sve", "bf16", "i8mm")
"""Beginnings of the processor flags that choose kernels."""


@dataclass(frozen=True)
class Facts:
    """A machine's."""

    node: str
    """Its name."""
    python: str
    code: str
    """Hash of the code that decides what the jobs compute."""
    package: str
    """Hash of all of the package: how jobs and their files travel, too."""
    libraries: Mapping[str, str]
    """Version by name."""
    processor: str
    flags: frozenset[str]
    """Of its processor, those that choose kernels."""


def facts(modules: Iterable[str]) -> Facts:
    """Those of this machine; `modules` are those of the jobs."""
    described = cpuinfo()
    flags = (described.get("flags") or described.get("Features") or "").split()
    own = sorted(module for module in modules if module.partition(".")[0] == PACKAGE)
    return Facts(
        node=os.uname().nodename,
        python=".".join(platform.python_version_tuple()[:2]),
        code=code_digest(SOURCE, *own),
        package=sha256_folder(Path(__file__).parent, pattern="*.py"),
        libraries=libraries(),
        processor=f"{platform.machine()}, {processor_name()}",
        flags=frozenset(flag for flag in flags if flag.startswith(KINDS)),
    )


def check_node(node: Facts, driver: Facts, name: str) -> None:
    """StudyError where jobs on `node`, called `name`, would not compute what they do here."""
    lines = []
    if node.python != driver.python:
        lines.append(f"Python {node.python}, here {driver.python}")
    if node.code != driver.code:
        lines.append("other code of sae-repro for these jobs")
    elif node.package != driver.package:
        lines.append("other code of sae-repro for what travels")
    names = sorted({*node.libraries, *driver.libraries})
    others = [
        f"{library} {node.libraries.get(library, 'missing')}, here "
        f"{driver.libraries.get(library, 'missing')}"
        for library in names
        if node.libraries.get(library) != driver.libraries.get(library)
    ]
    more = f"; and {len(others) - 3} more libraries" if len(others) > 3 else ""
    lines += [*others[:3]]
    if lines:
        raise StudyError(
            f"node {name} has {'; '.join(lines)}{more}: install there what is installed here "
            "(requirements.lock and the same checkout), or take the node out of the cluster"
        )


def warnings_on(node: Facts, driver: Facts, name: str) -> Iterator[str]:
    """Lines on a node whose results may differ from those of this machine by rounding."""
    bits = in_use() or "native"
    if bits == "native" and (node.processor, node.flags) != (driver.processor, driver.flags):
        yield (
            f"node {name} has another processor ({node.processor}; here {driver.processor}), and "
            "native bits follow from it: results differ by rounding; compute.bits = portable "
            "gives the same on both"
        )
    if bits == "portable" and not {"avx2", "fma"} <= node.flags:
        yield (
            f"node {name} ({node.processor}) has no AVX2 and FMA, for which portable bits are "
            "made: its results differ by rounding"
        )
