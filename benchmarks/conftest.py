"""The ratios under pytest-benchmark's table."""

from typing import Any


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Each median over that of its reference in the same run."""
    session = getattr(config, "_benchmarksession", None)
    rows = [b for b in getattr(session, "benchmarks", []) if b.stats.rounds]
    reference = {
        b.extra_info["reference"]: b.stats.median for b in rows if "reference" in b.extra_info
    }
    write = terminalreporter.write_line
    for kind, says in (("step", "x·W_enc"), ("read", "a copy of the bytes")):
        if kind not in reference:
            continue
        write(f"\nmedian / median of {says} ({reference[kind] * 1e3:.3f} ms), same run:")
        for b in rows:
            if b.extra_info.get("of") == kind:
                rate = b.extra_info.get("rows")
                more = f", {rate / b.stats.median / 1e6:.1f}M rows/s" if rate else ""
                label = b.name.partition("[")[2].rstrip("]") or b.name
                write(f"  {label:<32} {b.stats.median / reference[kind]:6.1f}{more}")
    for b in rows:
        if b.name.endswith("nothing_to_do"):
            write(f"\ndvc repro with nothing to do: {b.stats.median:.2f} s")
