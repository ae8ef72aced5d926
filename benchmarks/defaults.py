"""Our defaults beside SAELens' own trainer: held-out FVU and L0 of both on the same activations.

    python -m benchmarks.defaults root=artifacts/extract stories260k=studies/x/artifacts/extract
    python -m benchmarks.defaults --tried '{"lr": 5e-3}' root=artifacts/extract

Arguments name folders of a stage `extract`; make bench-defaults gives the root study's. With
--tried ours alone is trained, with the changes that follow.
Both trainers see the same rows in the same batches, as many steps, at the same width; ours has its
defaults and no further choice, SAELens the learning rates of `RATES`. Where a penalty sets the
sparsity, SAELens trains first and ours is asked for the L0 that SAELens came to. Every SAE is
evaluated by the same code. Rows are added to reports/benchmarks/defaults.csv as they are measured;
defaults.md is written anew from it.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.numerics.kernels import choose

if TYPE_CHECKING:
    import torch

    from sae_repro.autoencoders import SAE
    from sae_repro.readers.shards import ActivationStore

EXPANSION, K, BATCH, TOKENS, SEEDS = 8, 16, 512, 300_000, (0, 1)
RATES = (3e-3,)
"""SAELens': of 1e-3 and 3e-3 the better one for TopK on the root study's activations."""
AUXK = {"revival": "auxk", "dead_tokens": 100_000, "adam_eps": 6.25e-10}
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
}  # fmt: skip
"""Our cells beside lr and what is the same for all."""
L1 = {"ReLU + L1": 0.06, "gated": 0.13}
"""SAELens' coefficient over √E‖x‖² of the inputs: about 16 latents a token on the root study's."""
THRESHOLDED = ("BatchTopK", "Matryoshka BatchTopK")
TRIED = tuple(OURS)
"""Architectures for which a change is tried."""
TRIED_KEY = ["activations", "change", "architecture", "seed"]
KEY = ["activations", "architecture", "library", "lr", "seed"]


def peer(architecture: str, d: int, k_all: int, rms: float) -> Any:
    """SAELens' SAE to train, at its defaults beside sparsity and width."""
    from sae_lens.saes import batchtopk_sae, gated_sae, jumprelu_sae, standard_sae, topk_sae
    from sae_lens.saes import matryoshka_batchtopk_sae as matryoshka

    common = {"d_in": d, "d_sae": k_all, "dtype": "float32", "device": "cpu"}
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
                standard_sae.StandardTrainingSAEConfig(
                    **common, l1_coefficient=L1[architecture] * rms
                )
            )
        case "gated":
            return gated_sae.GatedTrainingSAE(
                gated_sae.GatedTrainingSAEConfig(**common, l1_coefficient=L1[architecture] * rms)
            )
        case _:
            return jumprelu_sae.JumpReLUTrainingSAE(
                jumprelu_sae.JumpReLUTrainingSAEConfig(
                    **common, jumprelu_sparsity_loss_mode="quadratic", target_l0=float(K)
                )
            )


def train_peer(
    architecture: str, store: "ActivationStore", hook: str, *, lr: float, seed: int
) -> "SAE":
    """The SAE that SAELens' trainer makes of the hook's activations, on raw activations."""
    import torch
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    from sae_repro.autoencoders import calibrated
    from sae_repro.autoencoders.interchange import import_sae
    from sae_repro.training.batches import Batches

    d, shards = store.d_in(hook), store.activations(hook, "train")
    batches = Batches(shards, BATCH, TOKENS // BATCH, seed=0, cell_id=f"{seed}")
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(seed)
    sae = peer(architecture, d, EXPANSION * d, store.rms(hook))
    config = SAETrainerConfig(
        total_training_samples=batches.steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=lr,
        lr_end=lr / 10,
        # linear decay, as ours
        lr_warm_up_steps=int(0.05 * batches.steps),
        lr_decay_steps=int(0.2 * batches.steps),
    )
    SAETrainer(config, sae, batches.starting_at(0)).fit()
    torch.use_deterministic_algorithms(True)
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        found = import_sae(Path(folder))
    if architecture not in THRESHOLDED:
        return found
    # at its own threshold, a mean of batches' smallest activations, more than k latents fire
    held = store.activations(hook, "calibration")
    return calibrated(found, _tensors(held.batches(4096)), K, held.rows)


def train_ours(
    architecture: str,
    store: "ActivationStore",
    hook: str,
    *,
    l0: float,
    seed: int,
    changes: Mapping[str, Any],
) -> tuple["SAE", float]:
    """(our SAE with `changes` of the defaults, its peak learning rate)."""
    from sae_repro.params import Cell, Train
    from sae_repro.training import Trainer

    choices = {"expansion": EXPANSION, "seed": seed, **OURS[architecture], **changes}
    if "k" not in choices:
        choices.setdefault("target_l0", l0)
    cell, never = Cell.model_validate(choices), 10**9
    settings = Train(batch_size=BATCH, log_every=never, checkpoint_every=never)
    trainer = Trainer(cell, settings, store, hook, seed=0, checkpoint=Path("none"))
    return trainer.run().sae, cell.peak_lr(store.d_in(hook))


def held_out(sae: "SAE", store: "ActivationStore", hook: str) -> dict[str, float]:
    """FVU, L0 and the fraction of latents that never fire, on the validation activations."""
    import torch

    mean = torch.cat([*_tensors(store.activations(hook, "validation").batches(4096))]).double()
    mean_d = mean.mean(0)
    error = total = active = rows = 0.0
    fired_k = torch.zeros(sae.d_sae, dtype=torch.bool)
    with torch.no_grad():
        for x_nd in _tensors(store.activations(hook, "validation").batches(4096)):
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


def _tensors(batches: Any) -> Iterator["torch.Tensor"]:
    import torch

    return (torch.from_numpy(rows.astype("float32")) for rows in batches)


def measure(store: "ActivationStore", hook: str, seed: int) -> Iterator[dict[str, Any]]:
    """A row per architecture, library and learning rate."""
    for architecture in OURS:
        for row in measure_one(architecture, store, hook, seed):
            yield {"architecture": architecture, **row}


def measure_one(
    architecture: str, store: "ActivationStore", hook: str, seed: int
) -> Iterator[dict[str, Any]]:
    """A row per library and learning rate."""
    l0 = float(K)
    for lr in RATES:
        start = time.process_time()
        sae = train_peer(architecture, store, hook, lr=lr, seed=seed)
        spent, found = time.process_time() - start, held_out(sae, store, hook)
        l0 = found["l0"]  # the last and best rate's
        yield {"library": "SAELens", "lr": lr, "seed": seed, **found, "cpu_s": round(spent, 1)}
    start = time.process_time()
    sae, lr = train_ours(architecture, store, hook, l0=l0, seed=seed, changes={"tokens": TOKENS})
    spent, found = time.process_time() - start, held_out(sae, store, hook)
    yield {"library": "sae-repro", "lr": lr, "seed": seed, **found, "cpu_s": round(spent, 1)}


def tried(
    store: "ActivationStore", hook: str, seed: int, changes: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row per architecture of `TRIED` for our cell with these changes, L0 asked to be K."""
    for architecture in TRIED:
        start = time.process_time()
        sae, lr = train_ours(architecture, store, hook, l0=K, seed=seed, changes=changes)
        spent, found = time.process_time() - start, held_out(sae, store, hook)
        yield {"architecture": architecture, "lr": lr, "seed": seed, **found,
               "cpu_s": round(spent, 1)}  # fmt: skip


def main(folders: Mapping[str, Path], *, changes: Mapping[str, Any] | None) -> None:
    """Train, a row at a time; with `changes` ours alone, for the table of what was tried."""
    choose("portable")  # before numpy is imported
    os.environ["TQDM_DISABLE"] = "1"
    from sae_repro.numerics.determinism import prepare
    from sae_repro.readers.shards import ActivationStore

    from .tables import machine_of, renew

    prepare(device="cpu", threads=1)
    warnings.simplefilter("ignore")
    for name, folder in folders.items():
        store = ActivationStore(folder)
        hook = next(iter(store.manifest["hooks"]))
        for seed in SEEDS:
            if changes is None:
                rows: Iterator[dict[str, Any]] = measure(store, hook, seed)
                table, key, at = "defaults", KEY, {"activations": name}
            else:
                rows = tried(store, hook, seed, changes)
                table, key = "defaults_tried", TRIED_KEY
                at = {"activations": name, "change": json.dumps(dict(changes))}
            for row in rows:
                print(json.dumps(at | row), flush=True)
                renew(table, [{**at, **row, **machine_of("portable")}], key)
    write_report()


def write_report() -> None:
    """defaults.md from the tables."""
    from importlib.metadata import version

    from .tables import read, write_page

    table = read("defaults")
    body = _beside(table, version("sae-lens"))
    others = read("defaults_tried")
    if len(others):
        body += "\n\n" + _tried(others)
    write_page("defaults", "Our defaults beside SAELens'", body, table)


def _beside(table: Any, sae_lens: str) -> str:
    shown = table.assign(
        way=[
            row.library if row.library == "sae-repro" else f"{row.library}, lr {row.lr:g}"
            for row in table.itertuples()
        ],
        found=[f"{row.fvu:.4f} ({row.l0:.1f}, {row.silent:.0%})" for row in table.itertuples()],
    )
    wide = shown.groupby(["activations", "architecture", "way"], sort=False)["found"].agg("; ".join)
    return (
        "Held-out FVU of each seed, in brackets L0 and the latents that fire on none of the "
        "validation activations. "
        f"{EXPANSION} latents a dimension; {TOKENS:,} tokens in batches of {BATCH} for both, in "
        "orders of their own. sae-repro: a cell's defaults (lr 0.08 / √D, grad_clip 0.01). SAELens "
        f"{sae_lens}: its trainer and its defaults beside lr, with the same warm-up and decay. "
        "Where a penalty sets the sparsity, ours was asked for the L0 of SAELens at the last rate "
        "shown. The threshold of SAELens' BatchTopK SAEs is set to L0 "
        f"{K} on calibration activations, as ours.\n\n{_markdown(wide)}"
    )


def _tried(table: Any) -> str:
    columns = ["activations", "architecture", "change", "seed", "fvu", "l0", "silent", "n"]
    return (
        "## What was tried\n\nOurs with changes of the defaults, at the L0 that `OURS` of "
        "benchmarks/defaults.py asks for or the change says; {} is none. silent: latents that fire "
        "on none of the n validation activations. Where the change names no tokens, one pass over "
        "the training activations, a million of the root study's.\n\n"
        + str(table[columns].to_markdown(index=False, disable_numparse=True))
    )


def _markdown(wide: Any) -> str:
    table = wide.unstack("way", sort=False).fillna("–").reset_index()
    return str(table.to_markdown(index=False, disable_numparse=True))


def _arguments(arguments: list[str]) -> tuple[dict[str, Path], dict[str, Any] | None]:
    """(folder by name, the changes to try)."""
    changes = None
    if arguments[:1] == ["--tried"]:
        changes, arguments = json.loads(arguments[1]), arguments[2:]
    named = (argument.partition("=") for argument in arguments)
    return {name: Path(folder) for name, _, folder in named}, changes


if __name__ == "__main__":
    _folders, _changes = _arguments(sys.argv[1:])
    main(_folders, changes=_changes)
