"""Our defaults beside SAELens' own trainer: held-out FVU and L0 of both on the same activations.

    python -m benchmarks.defaults root=artifacts/extract stories260k=studies/x/artifacts/extract
    python -m benchmarks.defaults --only TopK --seeds 0 --batch 128 news=studies/y/artifacts/extract
    python -m benchmarks.defaults --tried '{"lr": 5e-3}' root=artifacts/extract

Arguments name folders of a stage `extract`, whose first hook is read, or name=folder:hook; make
bench-defaults gives the root study's. With --tried ours alone is trained, with the changes that
follow. Both trainers see the same rows, as many, in as large batches, at the same width; ours has
its defaults and no further choice, SAELens inputs of one scale (expected_average_only_in) and each
learning rate of `RATES` (or --rates). Where a penalty sets the sparsity, ours is trained once for
every L0 that SAELens came to. Every SAE is evaluated by the same code. Rows are added to
reports/benchmarks/defaults.csv as they are measured; defaults.md is written anew from it
(`benchmarks.defaults_page`).
"""

import argparse
import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.numerics.kernels import choose

if TYPE_CHECKING:
    import torch

    from sae_repro.autoencoders import SAE
    from sae_repro.readers.shards import ActivationStore

K, SEEDS = 16, (0, 1)
RATES = (1e-3, 3e-3, 1e-2)
"""SAELens'."""
AUXK = {"revival": "auxk", "adam_eps": 6.25e-10}
DEAD_AFTER = 3  # one in so many of the training tokens: a latent that fired on none is dead
OURS: Mapping[str, Mapping[str, Any]] = {
    "TopK": {"activation": "topk", "k": K, **AUXK},
    "BatchTopK": {"activation": "batchtopk", "k": K, **AUXK},
    "Matryoshka BatchTopK": {"activation": "batchtopk", "k": K, "prefixes": "fixed", **AUXK},
    "ReLU + L1": {"penalty": "l1_decoder_norm", "decoder": "free", "lambda": 1e-2},
    "JumpReLU": {
        "activation": "jumprelu", "penalty": "l0_quadratic", "lambda": 1,
        "jumprelu_bandwidth": 0.02,
    },
    "gated": {"activation": "gated", "penalty": "l1", "lambda": 1e-2},
    "gated (trained auxiliary)": {
        "activation": "gated", "gated_auxiliary": "trained", "penalty": "l1_decoder_norm",
        "decoder": "free", "lambda": 1.6e-2,
    },
}  # fmt: skip
"""Our cells beside lr and what is the same for all; SAELens has one gated SAE."""
L1 = {"ReLU + L1": 0.06, "gated": 0.13, "gated (trained auxiliary)": 0.13}
"""SAELens' coefficient over √D, the mean norm of its inputs."""
THRESHOLDED = ("BatchTopK", "Matryoshka BatchTopK")
TRIED_KEY = ["activations", "change", "normalisation", "architecture", "seed"]
KEY = ["activations", "architecture", "library", "beside", "seed"]


@dataclass(frozen=True)
class Data:
    """Activations of one hook, and how long SAEs of which width are trained on them."""

    store: "ActivationStore"
    hook: str
    expansion: int
    tokens: int
    batch: int

    @property
    def d(self) -> int:
        """D."""
        return self.store.d_in(self.hook)

    def rows(self, split: str) -> Iterator["torch.Tensor"]:
        """The activations of `split` in chunks [n, D], fp32."""
        import torch

        shards = self.store.activations(self.hook, split)
        return (torch.from_numpy(rows.astype("float32")) for rows in shards.batches(4096))

    def mean_norm(self) -> float:
        """E‖x‖ of the training activations."""
        chunks = [x_nd.double().norm(dim=1) for x_nd in self.rows("train")]
        return sum(float(n.sum()) for n in chunks) / sum(map(len, chunks))


def peer(architecture: str, d: int, k_all: int) -> Any:
    """SAELens' SAE to train, at its defaults beside sparsity and width."""
    from sae_lens.saes import batchtopk_sae, gated_sae, jumprelu_sae, standard_sae, topk_sae
    from sae_lens.saes import matryoshka_batchtopk_sae as matryoshka

    common = {"d_in": d, "d_sae": k_all, "dtype": "float32", "device": "cpu",
              "normalize_activations": "expected_average_only_in"}  # fmt: skip
    l1 = L1.get(architecture, 0.0) * math.sqrt(d)
    match architecture:
        case "TopK":
            return topk_sae.TopKTrainingSAE(topk_sae.TopKTrainingSAEConfig(**common, k=K))
        case "BatchTopK":
            return batchtopk_sae.BatchTopKTrainingSAE(
                batchtopk_sae.BatchTopKTrainingSAEConfig(**common, k=float(K))
            )
        case "Matryoshka BatchTopK":
            widths = [k_all // n for n in (16, 8, 4, 2, 1)]
            return matryoshka.MatryoshkaBatchTopKTrainingSAE(
                matryoshka.MatryoshkaBatchTopKTrainingSAEConfig(
                    **common, k=float(K), matryoshka_widths=widths
                )
            )
        case "ReLU + L1":
            return standard_sae.StandardTrainingSAE(
                standard_sae.StandardTrainingSAEConfig(**common, l1_coefficient=l1)
            )
        case "gated" | "gated (trained auxiliary)":
            return gated_sae.GatedTrainingSAE(
                gated_sae.GatedTrainingSAEConfig(**common, l1_coefficient=l1)
            )
        case _:
            return jumprelu_sae.JumpReLUTrainingSAE(
                jumprelu_sae.JumpReLUTrainingSAEConfig(
                    **common, jumprelu_sparsity_loss_mode="quadratic", target_l0=float(K)
                )
            )


def train_peer(architecture: str, data: Data, *, lr: float, seed: int) -> "SAE":
    """The SAE that SAELens' trainer makes of the hook's activations, on raw activations."""
    import torch
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    from sae_repro.autoencoders import calibrated
    from sae_repro.autoencoders.interchange import import_sae
    from sae_repro.training.batches import Batches

    shards = data.store.activations(data.hook, "train")
    batches = Batches(shards, data.batch, data.tokens // data.batch, seed=0, cell_id=f"{seed}")
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(seed)
    sae = peer(architecture, data.d, data.expansion * data.d)
    config = SAETrainerConfig(
        total_training_samples=batches.steps * data.batch,
        train_batch_size_samples=data.batch,
        lr=lr,
        lr_end=lr / 10,
        # linear decay, as ours
        lr_warm_up_steps=int(0.05 * batches.steps),
        lr_decay_steps=int(0.2 * batches.steps),
        # as ours; at its 1,000 steps no latent would be revived in trainings as short as these
        dead_feature_window=batches.steps // DEAD_AFTER,
    )
    trainer = SAETrainer(config, sae, batches.starting_at(0))
    # or it would take a thousand batches to estimate it
    trainer.activation_scaler.scaling_factor = math.sqrt(data.d) / data.mean_norm()
    trainer.fit()
    torch.use_deterministic_algorithms(True)
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        found = import_sae(Path(folder))
    if architecture not in THRESHOLDED:
        return found
    # at its own threshold, a mean of batches' smallest activations, more than k latents fire
    rows = data.store.activations(data.hook, "calibration").rows
    return calibrated(found, data.rows("calibration"), K, rows)


def train_ours(
    architecture: str, data: Data, *, l0: float, seed: int, changes: Mapping[str, Any] = {}
) -> tuple["SAE", float]:
    """(our SAE with `changes` of the defaults, its peak learning rate)."""
    from sae_repro.params import Cell, Train
    from sae_repro.training import Trainer

    choices = {"expansion": data.expansion, "seed": seed, "tokens": data.tokens,
               **OURS[architecture], **changes}  # fmt: skip
    if choices.get("revival") == "auxk":
        choices.setdefault("dead_tokens", data.tokens // DEAD_AFTER)
    if "k" not in choices:
        choices.setdefault("target_l0", l0)
    cell, never = Cell.model_validate(choices), 10**9
    settings = Train(batch_size=data.batch, log_every=never, checkpoint_every=never)
    trainer = Trainer(cell, settings, data.store, data.hook, seed=0, checkpoint=Path("none"))
    return trainer.run().sae, cell.peak_lr(data.d)


def held_out(sae: "SAE", data: Data) -> dict[str, float]:
    """FVU, L0 and the fraction of latents that never fire, on the validation activations."""
    import torch

    mean_d = torch.cat([*data.rows("validation")]).double().mean(0)
    error = total = active = rows = 0.0
    fired_k = torch.zeros(sae.d_sae, dtype=torch.bool)
    with torch.no_grad():
        for x_nd in data.rows("validation"):
            z_nk = sae.encode(x_nd)
            error += float((x_nd - sae.decode(z_nk)).double().square().sum())
            total += float((x_nd.double() - mean_d).square().sum())
            active += float((z_nk > 0).sum())
            fired_k |= (z_nk > 0).any(0)
            rows += len(x_nd)
    silent = 1 - float(fired_k.double().mean())
    return {
        "fvu": round(error / total, 5),
        "l0": round(active / rows, 2),
        "silent": round(silent, 4),
        "n": int(rows),
    }


def measure(
    data: Data, seed: int, rates: tuple[float, ...], architectures: Sequence[str] = tuple(OURS)
) -> Iterator[dict[str, Any]]:
    """A row per architecture, library and, of SAELens, learning rate."""
    for architecture in architectures:
        l0s: dict[float | str, float] = {}
        for lr in rates:
            with _timed() as spent:
                sae = train_peer(architecture, data, lr=lr, seed=seed)
            found = held_out(sae, data)
            l0s[lr] = found["l0"]
            yield {"architecture": architecture, "library": "SAELens", "lr": lr, "beside": lr,
                   "seed": seed, **found, **spent}  # fmt: skip
        if "k" in OURS[architecture]:
            l0s = {"": K}
        for beside, l0 in l0s.items():
            yield {"library": "sae-repro", "beside": beside, **ours(architecture, data, l0, seed)}


def ours(
    architecture: str, data: Data, l0: float, seed: int, changes: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """The row of our cell with these changes."""
    with _timed() as spent:
        sae, lr = train_ours(architecture, data, l0=l0, seed=seed, changes=changes)
    return {"architecture": architecture, "lr": lr, "seed": seed, **held_out(sae, data), **spent}


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    spent: dict[str, float] = {}
    start = time.process_time()
    yield spent
    spent["cpu_s"] = round(time.process_time() - start, 1)


def main(options: argparse.Namespace) -> None:
    """Train, a row at a time; with changes ours alone, for the table of what was tried."""
    choose("portable")  # before numpy is imported
    os.environ["TQDM_DISABLE"] = "1"
    from sae_repro.numerics.determinism import prepare
    from sae_repro.readers.shards import ActivationStore

    from .defaults_page import write_report
    from .tables import machine_of, renew

    prepare(device="cpu", threads=1)
    warnings.simplefilter("ignore")
    for argument in options.activations:
        name, _, place = argument.partition("=")
        folder, _, hook = place.partition(":")
        store = ActivationStore(Path(folder))
        sizes = {"expansion": options.expansion, "tokens": options.tokens, "batch": options.batch}
        data = Data(store, hook or next(iter(store.manifest["hooks"])), **sizes)
        at = {"activations": name, **sizes}
        for seed in options.seeds:
            if options.tried is None:
                table, key, rows = (
                    "defaults",
                    KEY,
                    measure(data, seed, tuple(options.rates), options.only),
                )
            else:
                table, key = "defaults_tried", TRIED_KEY
                at |= {"change": json.dumps(options.tried), "normalisation":
                       options.tried.get("normalisation", "expected_norm")}  # fmt: skip
                rows = (ours(name, data, K, seed, options.tried) for name in options.only)
            for row in rows:
                print(json.dumps(at | row), flush=True)
                renew(table, [{**at, **row, **machine_of("portable")}], key)
    write_report()


def asked(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line, or `arguments`, asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults")
    parser.add_argument("activations", nargs="+", help="name=folder or name=folder:hook")
    parser.add_argument("--tried", type=json.loads, help="changes of our defaults, as JSON")
    parser.add_argument("--only", nargs="+", choices=list(OURS), default=list(OURS), metavar="NAME",
                        help="architectures, of: " + ", ".join(OURS))  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES),
                        help="SAELens' learning rates")  # fmt: skip
    parser.add_argument("--expansion", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--batch", type=int, default=512)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(asked())
