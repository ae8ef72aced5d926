"""What portable kernels cost against native ones: CPU time of the main steps, as a Markdown table.

    python benchmarks/bits.py [ROUNDS]

A process computes with kernels of one kind, so there are two, which take turns round by round:
what else the machine does meets both alike. Medians of CPU time, one thread each.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

BITS = ("portable", "native")
HOOK = "blocks.0.hook_resid_post"
S, M = (128, 2048), (768, 6144)
STEP, PASS = 512, 4096  # activations of a training step, of a pass of evaluation


def works(folder: Path) -> dict[str, Callable[[], object]]:
    """One round of each step by name."""
    found: dict[str, Callable[[], object]] = {}
    for label, (d, k) in {"S": S, "M": M}.items():
        for activation in ("relu", "topk"):
            name = f"SAE step {label}, {activation}: D {d}, K {k}, batch {STEP}"
            found[name], passing = sae_works(folder / f"{label}-{activation}", d, k, activation)
            if label == "S":
                found[f"evaluation pass S, {activation}: {PASS} activations"] = passing
    found["subject step: GPT-2, D 64, 3 blocks, batch 64 of 64"] = subject_work()
    return found


def sae_works(
    folder: Path, d: int, k: int, activation: str
) -> tuple[Callable[[], object], Callable[[], object]]:
    """(a training step, a first pass of evaluation) of an SAE [D, K] on random activations."""
    import numpy as np
    import torch

    from sae_repro.evaluate.held_out import Batch, HeldOut
    from sae_repro.evaluate.reconstruction import accumulate
    from sae_repro.extract.sinks import ShuffledSink
    from sae_repro.files import write_json
    from sae_repro.params import Cell, Train
    from sae_repro.readers.shards import ActivationStore
    from sae_repro.training import Trainer

    rng = np.random.default_rng(0)
    x_nd = rng.standard_normal((PASS, d), dtype=np.float32)
    index = np.stack([np.arange(PASS) // 64] * 3, axis=1).astype(np.int32)
    sink = ShuffledSink(folder, [HOOK], d, "float32", shards=1, rng=rng)
    sink.append({HOOK: x_nd}, index)
    hook = {
        "d_in": d,
        "rms": d**0.5,
        "median_norm": d**0.5,
        "shards": {"train": sink.close()[HOOK]},
    }
    write_json(folder / "manifest.json", {"hooks": {HOOK: hook}, "index": {}})
    how = {"penalty": "l1", "lambda": 1e-2} if activation == "relu" else {"k": 32}
    cell = Cell.model_validate({"expansion": k // d, "activation": activation, **how})
    trainer = Trainer(cell, Train(batch_size=STEP), ActivationStore(folder), HOOK, seed=0,
                      checkpoint=folder / "none")  # fmt: skip
    batch, steps = next(trainer.batches.starting_at(0)), iter(range(10**9))
    whole: Batch = torch.from_numpy(x_nd), index
    held_out, sae = HeldOut.of(lambda: [whole], d), trainer.sae()
    return (
        lambda: trainer._step(next(steps) % 8, batch),
        lambda: accumulate(sae, [whole], held_out),
    )


def subject_work() -> Callable[[], object]:
    """A training step of a model of the embedded one's shape."""
    import torch

    from sae_repro.params import Training
    from sae_repro.subject.gpt2 import _loss, _new_model

    settings = Training(threads=1)
    model = _new_model(settings, 1000, 0, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.arange(64 * 64).reshape(64, 64) % 1000
    length = torch.full((64,), 64)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        _loss(model, tokens, length).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def serve(bits: str) -> None:
    """Print the names of all steps; then the CPU seconds of a round of each that is asked for."""
    from sae_repro.numerics.kernels import choose

    choose("portable" if bits == "portable" else "native")
    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        named = works(Path(folder))
        print("\t".join(named), flush=True)
        for line in sys.stdin:
            start = time.process_time()
            named[line.rstrip("\n")]()
            print(time.process_time() - start, flush=True)


def main(rounds: int) -> None:
    """Start both, and have them take turns."""
    env = {k: v for k, v in os.environ.items() if k != "SAE_REPRO_BITS"} | {"OMP_NUM_THREADS": "1"}
    servers = {
        bits: subprocess.Popen(
            [sys.executable, __file__, "serve", bits], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for bits in BITS
    }  # fmt: skip
    names, _ = (_answer(server.stdout).split("\t") for server in servers.values())
    print(f"{platform.system()} {platform.machine()}, medians of {rounds} rounds\n")
    print("| step | portable, ms of CPU | native | portable / native |\n|---|---|---|---|")
    for name in names:
        taken: dict[str, list[float]] = {bits: [] for bits in BITS}
        for n in range(rounds + 1):
            for bits in BITS if n % 2 else reversed(BITS):
                server = servers[bits]
                assert server.stdin is not None
                print(name, file=server.stdin, flush=True)
                seconds = float(_answer(server.stdout))
                if n:  # the first warms up
                    taken[bits].append(seconds)
        ours, theirs = (statistics.median(taken[bits]) for bits in BITS)
        print(f"| {name} | {ours * 1e3:.1f} | {theirs * 1e3:.1f} | {ours / theirs:.2f} |",
              flush=True)  # fmt: skip
    for server in servers.values():
        server.communicate()


def _answer(stream: IO[str] | None) -> str:
    assert stream is not None
    line = stream.readline().rstrip("\n")
    if not line:
        sys.exit("a process ended: its message is above")
    return line


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 9)
