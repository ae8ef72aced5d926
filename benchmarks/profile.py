"""Where the time of a training step goes: its functions by their own CPU time.

    python -m benchmarks.profile S TopK     # a size of shapes.py, a cell of steps.py

By Python's profiler with the processor's clock. What numpy computes counts for the function that
calls it; torch's own operations have lines of their own.
"""

import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path

from sae_repro.numerics.kernels import choose

STEPS, LINES = 12, 18


def main(size: str, name: str) -> None:
    """Print the functions of a few steps, those that take most first."""
    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    from .shapes import SHAPES, activations, store_of
    from .steps import GROUPS, batches_of, gemm, step_of

    cells = {name: choices for group in GROUPS.values() for name, choices in group.items()}
    if size not in SHAPES or name not in cells:
        sys.exit(f"sizes: {', '.join(SHAPES)}; cells: {'; '.join(cells)}")
    shape = SHAPES[size]
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(activations(shape), Path(folder))
        step, batches = step_of(name, cells[name], shape, store), batches_of(store, shape)
        product = gemm(shape)
        for batch in batches[:2]:
            step(batch), product(batch)
        profiler, in_products = cProfile.Profile(time.process_time), 0.0
        for number in range(STEPS):
            batch = batches[number % len(batches)]
            profiler.runcall(step, batch)
            start = time.process_time()
            product(batch)
            in_products += time.process_time() - start
    found = pstats.Stats(profiler)
    total: float = found.total_tt  # type: ignore[attr-defined]
    print(
        f"{1e3 * total / STEPS:.1f} ms a step; the bare product x·W_enc: "
        f"{1e3 * in_products / STEPS:.1f} ms, {in_products / total:.0%} of it"
    )
    found.sort_stats("tottime").print_stats(LINES)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    choose("portable")  # before numpy is imported
    main(*sys.argv[1:])
