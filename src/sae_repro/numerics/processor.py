"""The processor that this process runs on, as Linux describes it."""

import platform
from pathlib import Path


def cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def processor_name() -> str:
    """Its model's name; what the system does not tell is the kind of machine."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()
