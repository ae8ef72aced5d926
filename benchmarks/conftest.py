"""Portable kernels, as stages compute with, and the ratios under pytest-benchmark's table."""

from typing import Any

from sae_repro.numerics.kernels import choose

choose("portable")  # before numpy and torch are imported

from sae_repro.numerics.determinism import prepare  # noqa: E402


def pytest_configure(config: Any) -> None:
    """One thread, as a cell of a grid has."""
    prepare(device="cpu", threads=1)


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """What is told of a whole run: ratios to a reference, targets."""
    session = getattr(config, "_benchmarksession", None)
    rows = [b for b in getattr(session, "benchmarks", []) if b.stats.rounds]
    write = terminalreporter.write_line
    reference = [b.stats.median for b in rows if "reference" in b.extra_info]
    for b in rows:
        if "rows" in b.extra_info and reference:
            rate = b.extra_info["rows"] / b.stats.median / 1e6
            write(f"\nshuffled epoch: {b.stats.median / reference[0]:.1f} × a copy of the bytes, "
                  f"{rate:.1f}M rows/s")  # fmt: skip
        if b.name.endswith("nothing_to_do"):
            write(f"\ndvc repro with nothing to do: {b.stats.median:.2f} s")
    if any(b.name.startswith("test_steps") for b in rows):
        from .tables import FOLDER
        from .targets import lines

        write(f"\n{(FOLDER / 'steps.md').read_text()}")
        for line in lines():
            write(line)
