"""Targets of speed, computed from the tables in reports/benchmarks; nothing fails by them.

python -m benchmarks.targets
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from .steps import GEMM
from .tables import read


@dataclass(frozen=True)
class Target:
    """A step's median over that of a reference, at a size, and the most that it should be."""

    size: str
    step: str
    over: str
    most: float
    library: str = "sae-repro"
    """Of the reference."""
    bits: str = "portable"


PREFIXED = [
    Target(size, name, "BatchTopK", most)
    for size, most in {"M": 1.2, "S": 1.35}.items()
    for name in ("Matryoshka, 5 fixed", "Matryoshka, 10 random")
]
STEPS = [
    *(Target(size, "BatchTopK", "TopK", 1.15) for size in "SML"),
    *PREFIXED,
    *(Target(size, "ReLU, density 1 %", GEMM, 2.3) for size in "SML"),
    *(Target(size, "ReLU, dense", GEMM, 5.5) for size in "SML"),
    *(Target(size, "TopK + AuxK, 10 % dead", "TopK", 1.4) for size in "SML"),
]
"""Of steps.csv: ours alone."""
PEERS = [
    Target(size, "TopK", "TopK", most, library, bits)
    for bits in ("native", "portable")
    for library, bounds in {
        "sparsify": {"S": 0.55, "M": 0.55, "L": 0.55},
        "SAELens": {"S": 0.22, "M": 0.18, "L": 0.18},
    }.items()
    for size, most in bounds.items()
]
"""Of peers.csv: ours over another library's, in the same process."""


def lines() -> Iterator[str]:
    """A line per target that was measured: its value, its bound, whether it is met."""
    for name, targets in {"steps": STEPS, "peers": PEERS}.items():
        table = read(name)
        for target in targets:
            ours = _median(table, target, target.step, "sae-repro")
            theirs = _median(table, target, target.over, target.library)
            if ours is not None and theirs is not None:
                yield _line(target, ours / theirs)


def _median(table: pd.DataFrame, target: Target, step: str, library: str) -> float | None:
    if not len(table):
        return None
    table = table[(table["size"] == target.size) & (table["bits"] == target.bits)]
    # steps are timed by groups, each with a product of its own
    groups = table.loc[table["step"] == target.step, "group"]
    chosen = table[(table["step"] == step) & table["group"].isin(groups)]
    if "library" in chosen:
        chosen = chosen[(chosen["library"] == library) & (chosen["group"] == target.step)]
    return float(chosen["ms"].iloc[0]) if len(chosen) else None


def _line(target: Target, value: float) -> str:
    over = target.over if target.library == "sae-repro" else f"{target.library}, {target.bits}"
    met = "met" if value <= target.most else "MISSED"
    return f"{target.size}: {target.step} / {over}: {value:.2f}, at most {target.most:g}: {met}"


if __name__ == "__main__":
    print("\n".join(lines()))
