"""Growth of a TopK step with K, D, the batch and k: time, and memory of a process of its own.

    python -m benchmarks.growth

Writes reports/benchmarks/growth.csv, growth.md and growth.svg.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.numerics.kernels import choose

if TYPE_CHECKING:
    import pandas as pd

    from .shapes import Shape

ROUNDS = 10
AXES = {
    "K": ("k_all", (2048, 4096, 8192, 16384, 32768, 65536)),
    "D": ("d", (64, 128, 256, 512, 768)),
    "batch": ("batch", (256, 512, 1024, 2048, 4096)),
    "k": ("k", (8, 16, 32, 64, 128)),
}
"""What is varied from size S on, one at a time."""


def measure(shape: "Shape") -> dict[str, Any]:
    """Times of the step in this process, and the memory that it came to need."""
    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    from .rounds import WARM_UP, Rounds
    from .shapes import activations, store_of
    from .steps import GEMM, SPARSE, batches_of, gemm, step_of

    with tempfile.TemporaryDirectory() as folder:
        store = store_of(activations(shape), Path(folder))
        batches = batches_of(store, shape)
        before = _resident()
        steps = {"TopK": step_of("TopK", SPARSE["TopK"], shape, store)}
        alone = Rounds(steps, batches)
        alone.turn()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        rounds = Rounds({GEMM: gemm(shape), **steps}, batches)
        for _ in range(ROUNDS + WARM_UP):
            rounds.turn()
    product, row = rounds.rows()
    return {**row, "gemm_ms": product["ms"], "peak_mib": round(peak, 1)}


def _resident() -> float:
    """MiB that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def points() -> "Iterator[tuple[str, Shape]]":
    """(axis, shape) of each point."""
    from .shapes import SHAPES

    for axis, (field, values) in AXES.items():
        for value in values:
            yield axis, replace(SHAPES["S"], **{field: value})


def main() -> None:
    """A process per shape; the table and the figure."""
    from .shapes import SHAPES
    from .tables import machine_of, renew, write_page

    env = {k: v for k, v in os.environ.items() if k != "SAE_REPRO_BITS"} | {"OMP_NUM_THREADS": "1"}
    found: dict[Shape, Mapping[str, Any]] = {}
    rows = []
    for axis, shape in points():
        if shape not in found:  # all axes meet at S
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.growth", *map(str, astuple(shape))],
                env=env, check=True, text=True, stdout=subprocess.PIPE,
            )  # fmt: skip
            found[shape] = json.loads(done.stdout)
        at = {"D": shape.d, "K": shape.k_all, "batch": shape.batch, "k": shape.k}
        tokens = {"tokens_per_second": round(1e3 * shape.batch / found[shape]["ms"])}
        rows.append({"axis": axis, **at, **found[shape], **tokens, **machine_of("portable")})
    table = renew("growth", rows, ["axis", "bits"])
    _draw(table)
    shown = table[["axis", "D", "K", "batch", "k", "ms", "ratio", "tokens_per_second", "peak_mib"]]
    write_page(
        "growth",
        "Growth of a training step",
        f"A TopK step from {SHAPES['S']} on, one number varied at a time; a process each, one "
        f"thread, fp32, median CPU time of {ROUNDS} rounds. ratio: over the bare encoder product "
        "x·W_enc of the same process. peak_mib: the most memory that the process came to hold, "
        "beyond what it held before the trainer was made: weights, gradients, Adam's moments and "
        "all that a step needs.\n\n![growth](growth.svg)\n\n"
        + str(shown.to_markdown(index=False, disable_numparse=True)),
        table,
    )


def _draw(table: "pd.DataFrame") -> None:
    """Time, memory and ratio by each axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none"}
    import matplotlib.pyplot as plt

    from .tables import FOLDER

    panels = {"ms": "ms of CPU a step", "peak_mib": "peak memory, MiB", "ratio": "÷ x·W_enc"}
    figure, axes = plt.subplots(len(panels), len(AXES), figsize=(11, 7), sharey="row",
                                layout="constrained")  # fmt: skip
    for column, axis in enumerate(AXES):
        rows = table[table["axis"] == axis].sort_values(axis)
        for row, (name, label) in enumerate(panels.items()):
            panel = axes[row, column]
            panel.plot(rows[axis], rows[name], marker="o", label="TopK step")
            if name == "ms":
                panel.plot(rows[axis], rows["gemm_ms"], marker=".", ls=":", label="x·W_enc")
                panel.legend(fontsize="small")
            panel.set_xscale("log", base=2)
            panel.set_yscale("linear" if name == "ratio" else "log")
            panel.set_xlabel(axis)
            if not column:
                panel.set_ylabel(label)
            if name == "ratio":
                panel.set_ylim(0, 1.1 * table["ratio"].max())  # shared: by all panels' values
    figure.savefig(FOLDER / "growth.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    if sys.argv[1:]:
        choose("portable")  # before numpy is imported
        from .shapes import Shape

        print(json.dumps(measure(Shape(*map(int, sys.argv[1:])))))
    else:
        main()
