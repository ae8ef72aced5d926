"""Where the time of a training step goes: its operations by their own CPU time.

python -m benchmarks.profile S TopK     # a size of shapes.py, a cell of steps.py
"""

import sys
import tempfile
from pathlib import Path

from sae_repro.numerics.kernels import choose

STEPS = 5


def main(size: str, name: str) -> None:
    """Print torch's table of operations over a few steps."""
    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    from torch.profiler import ProfilerActivity, profile

    from .shapes import SHAPES, activations, store_of
    from .steps import GROUPS, batches_of, step_of

    cells = {name: choices for group in GROUPS.values() for name, choices in group.items()}
    if size not in SHAPES or name not in cells:
        sys.exit(f"sizes: {', '.join(SHAPES)}; cells: {'; '.join(cells)}")
    shape = SHAPES[size]
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(activations(shape), Path(folder))
        step, (first, *rest) = step_of(name, cells[name], shape, store), batches_of(store, shape)
        step(first)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            for batch in rest[:STEPS]:
                step(batch)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


if __name__ == "__main__":
    choose("portable")  # before numpy is imported
    main(*sys.argv[1:3])
