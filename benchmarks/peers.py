"""Training steps of other libraries and ours, in one process on the same batches.

    python -m benchmarks.peers            # in the environment of locks/peers.txt: make bench-peers

A process computes with kernels of one kind, so there are two, one after the other: `native`, as a
user of those libraries has them, and `portable`, which replaces torch's products in the whole
process, and so in theirs. Writes reports/benchmarks/peers.csv and peers.md.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NOTES = """\
Each library's own step, with Adam, fp32, no input normalisation and no auxiliary loss of dead
latents, and what else it does in a step:

- sae-repro: removes the gradient along the decoder's unit rows, clips to norm 1, keeps unit rows;
  counts the tokens since each latent fired, follows BatchTopK's threshold, watches over faults.
- SAELens SAE-LENS: `SAETrainer.step`, and what `fit` does around it but its progress bar. It clips
  to norm 1, keeps no unit rows but weighs pre-activations by their norms, counts how often each
  latent fires. Matryoshka decodes each prefix by itself.
- dictionary_learning DICTIONARY-LEARNING: `update` of its trainers. It removes the gradient along
  unit rows, clips to norm 1, keeps unit rows (ReLU: by an Adam of its own, without clipping), and
  reads the loss back on every step. `nnsight`, which only its buffer of activations uses, is not
  loaded.
- sparsify EAI-SPARSIFY: `SparseCoder` by the lines of `Trainer.fit`, which is tied to a language
  model's forward pass; torch's Adam and its schedule (its default is another optimiser, Signum).
  It removes the gradient along unit rows, keeps them, does not clip, and reads the FVU back on
  every step. It has TopK alone of these activations.

Matryoshka is BatchTopK with the five fixed prefixes K/16, K/8, K/4, K/2 and K. ReLU and JumpReLU
are at the start of a training, where about half of the latents fire.\
"""
LEARNING_RATE = 1e-3
STEPS = 100_000  # of a training that is never run to its end

GROUPS = ("TopK", "BatchTopK", "Matryoshka", "ReLU", "JumpReLU")
ROUNDS: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "native": {
        "S": dict.fromkeys(GROUPS, 20),
        "M": dict.fromkeys(GROUPS, 10),
        "L": {"TopK": 10},
    },
    "portable": {
        "S": dict.fromkeys(GROUPS, 20),
        "M": {"TopK": 10},
        "L": {"TopK": 10},
    },
}
"""How often each is timed; medians of fewer put sparsify's at M at 2.1 to 2.7 products."""
OURS = {
    "TopK": "TopK", "BatchTopK": "BatchTopK", "Matryoshka": "Matryoshka, 5 fixed",
    "ReLU": "ReLU, dense", "JumpReLU": "JumpReLU",
}  # fmt: skip

Step = Callable[[Any], object]


def saelens(group: str, d: int, k_all: int, batch: int, k: int) -> Step:
    """A step of SAELens."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes import batchtopk_sae, jumprelu_sae, standard_sae, topk_sae
    from sae_lens.saes import matryoshka_batchtopk_sae as matryoshka
    from sae_lens.training.sae_trainer import SAETrainer

    common = {"d_in": d, "d_sae": k_all, "dtype": "float32", "device": "cpu"}
    top = {"aux_loss_coefficient": 0.0}
    match group:
        case "TopK":
            sae: Any = topk_sae.TopKTrainingSAE(
                topk_sae.TopKTrainingSAEConfig(**common, **top, k=k)
            )
        case "BatchTopK":
            sae = batchtopk_sae.BatchTopKTrainingSAE(
                batchtopk_sae.BatchTopKTrainingSAEConfig(**common, **top, k=float(k))
            )
        case "Matryoshka":
            sae = matryoshka.MatryoshkaBatchTopKTrainingSAE(
                matryoshka.MatryoshkaBatchTopKTrainingSAEConfig(
                    **common,
                    **top,
                    k=float(k),
                    matryoshka_widths=[k_all // n for n in (16, 8, 4, 2, 1)],
                )
            )
        case "ReLU":
            sae = standard_sae.StandardTrainingSAE(
                standard_sae.StandardTrainingSAEConfig(**common, l1_coefficient=1e-2)
            )
        case _:
            sae = jumprelu_sae.JumpReLUTrainingSAE(
                jumprelu_sae.JumpReLUTrainingSAEConfig(**common, l0_coefficient=1e-3)
            )
    config = SAETrainerConfig(
        total_training_samples=batch * STEPS,
        train_batch_size_samples=batch,
        lr=LEARNING_RATE,
        lr_end=LEARNING_RATE / 10,
    )
    trainer: Any = SAETrainer(config, sae, iter(()))

    def step(x_nd: Any) -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(x_nd)
        trainer._checkpoint_if_needed()
        trainer.n_training_steps += 1

    return step


def dictionary_learning(group: str, d: int, k_all: int, batch: int, k: int) -> Step:
    """A step of dictionary_learning."""
    import types
    from itertools import count

    # which wants a web server, and releases of other packages
    sys.modules.setdefault("nnsight", types.ModuleType("nnsight")).__dict__["LanguageModel"] = None
    from dictionary_learning.trainers import batch_top_k, jumprelu, standard, top_k
    from dictionary_learning.trainers import matryoshka_batch_top_k as matryoshka

    common = {"steps": STEPS, "activation_dim": d, "dict_size": k_all, "layer": 0,
              "lm_name": "none", "device": "cpu", "lr": LEARNING_RATE}  # fmt: skip
    top = {"k": k, "auxk_alpha": 0.0}
    match group:
        case "TopK":
            trainer: Any = top_k.TopKTrainer(**common, **top)
        case "BatchTopK":
            trainer = batch_top_k.BatchTopKTrainer(**common, **top)
        case "Matryoshka":
            trainer = matryoshka.MatryoshkaBatchTopKTrainer(
                **common, **top, group_fractions=[1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2]
            )
        case "ReLU":
            trainer = standard.StandardTrainer(**common, l1_penalty=1e-2)
        case _:
            trainer = jumprelu.JumpReluTrainer(**common, target_l0=float(k))
    steps = count(1)  # 0 sets the bias by a geometric median
    return lambda x_nd: trainer.update(next(steps), x_nd)


def sparsify(group: str, d: int, k_all: int, batch: int, k: int) -> Step:
    """A step of sparsify, as `Trainer.fit` does it for a hook point."""
    import torch
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder
    from transformers import get_linear_schedule_with_warmup

    assert group == "TopK"
    sae: Any = SparseCoder(d, SparseCoderConfig(num_latents=k_all, k=k), "cpu", torch.float32)
    adam = torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE)
    schedule = get_linear_schedule_with_warmup(adam, 1000, STEPS)
    since_k = torch.zeros(k_all, dtype=torch.long)
    fired_k = torch.zeros(k_all, dtype=torch.bool)

    def step(x_nd: Any) -> None:
        sae.set_decoder_norm_to_unit_norm()
        variance = (x_nd - x_nd.mean(0)).pow(2).sum()
        out = sae(x=x_nd, y=x_nd, dead_mask=None, total_variance=variance)
        fired_k[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        (out.fvu + out.multi_topk_fvu / 8).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        schedule.step()
        with torch.no_grad():
            since_k.add_(len(x_nd))
            since_k[fired_k] = 0
            fired_k.zero_()

    return step


LIBRARIES: Mapping[str, Callable[..., Step]] = {
    "SAELens": saelens,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
}


def measure(bits: str) -> None:
    """Print a line of JSON per step that was timed with kernels of this kind."""
    from sae_repro.numerics.kernels import choose

    choose("portable" if bits == "portable" else "native")
    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    import torch

    from .rounds import WARM_UP, Rounds
    from .shapes import SHAPES, activations, store_of
    from .steps import DENSE, GEMM, SPARSE, batches_of, gemm, step_of

    def as_released(step: Step) -> Step:
        """Without the deterministic kernels that ours asks torch for."""

        def run(x_nd: Any) -> None:
            torch.use_deterministic_algorithms(False)
            step(x_nd)
            torch.use_deterministic_algorithms(True)

        return run

    warnings.simplefilter("ignore")
    cells = {**SPARSE, **DENSE}
    for size, groups in ROUNDS[bits].items():
        shape = SHAPES[size]
        with tempfile.TemporaryDirectory() as folder:
            store = store_of(activations(shape), Path(folder))
            for group, rounds in groups.items():
                numbers = shape.d, shape.k_all, shape.batch, shape.k
                steps: dict[str, Step] = {
                    GEMM: gemm(shape),
                    "sae-repro": step_of(OURS[group], cells[OURS[group]], shape, store),
                    **{
                        name: as_released(make(group, *numbers))
                        for name, make in LIBRARIES.items()
                        if group == "TopK" or name != "sparsify"
                    },
                }
                timed = Rounds(steps, batches_of(store, shape))
                for _ in range(rounds + WARM_UP):
                    timed.turn()
                for row in timed.rows():
                    library = row.pop("step")
                    at = {"size": size, "D": shape.d, "K": shape.k_all, "batch": shape.batch,
                          "k": shape.k, "group": group, "library": library}  # fmt: skip
                    print(json.dumps({**at, "step": group, **row}), flush=True)


def main() -> None:
    """Time both kinds of kernels, write the table, say which targets are met."""
    from .tables import machine_of, renew
    from .targets import lines

    env = {k: v for k, v in os.environ.items() if k != "SAE_REPRO_BITS"} | {
        "OMP_NUM_THREADS": "1", "SPARSIFY_DISABLE_TRITON": "1",
    }  # fmt: skip
    rows = []
    for bits in ROUNDS:
        done = subprocess.run([sys.executable, "-m", "benchmarks.peers", bits], env=env, text=True,
                              stdout=subprocess.PIPE)  # fmt: skip
        if done.returncode:
            sys.exit(f"{bits}: the process that times ended with {done.returncode}; see above")
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        rows += [{**row, **machine_of(bits)} for row in found]
    renew("peers", rows, ["size", "group", "bits"])
    print(write_report())
    for line in lines():
        print(line)


def write_report() -> str:
    """peers.md from peers.csv; its table."""
    from importlib.metadata import version

    from .shapes import SHAPES
    from .steps import GEMM
    from .tables import read, wide, write_page

    table = read("peers")
    notes = NOTES
    for name in ("sae-lens", "dictionary-learning", "eai-sparsify"):
        notes = notes.replace(name.upper(), version(name))
    sizes = "\n".join(f"- {name}: {SHAPES[name]}" for name in ROUNDS["native"])
    body = wide(table[table["library"] != GEMM], down=["bits", "size", "group"], across="library")
    write_page(
        "peers",
        "Training steps beside other libraries'",
        "Median CPU time of a training step over that of the bare encoder product x·W_enc of the "
        "same process and kernels, with quartiles; one thread, in turn on the same batches. bits: "
        "`native` are the kernels that torch chooses by itself, `portable` those of this package, "
        "by which all products of the process are computed. peers.csv has the times and the number "
        f"of rounds.\n\n{sizes}\n\n{body}\n\n{notes}",
        table,
    )
    return body


if __name__ == "__main__":
    if sys.argv[1:]:
        measure(sys.argv[1])
    else:
        main()
