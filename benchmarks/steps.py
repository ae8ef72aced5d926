"""Training steps of this package, one per kind of cell, as functions of a batch."""

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_repro.params import Cell, Train
from sae_repro.params.axis_labels import ACTIVATION_LABELS
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Trainer

from .shapes import BATCHES, HOOK, Shape

Step = Callable[[Tensor], object]

GEMM = "x·W_enc"
DENSITY = 0.01  # of a sparse ReLU
DEAD = 0.1  # of the latents, for AuxK
NEVER = 10**12  # tokens: what is dead is said below

SPARSE: Mapping[str, Mapping[str, Any]] = {
    "TopK": {"activation": "topk"},
    "TopK + AuxK, 10 % dead": {"activation": "topk", "revival": "auxk", "dead_tokens": NEVER},
    "BatchTopK": {"activation": "batchtopk"},
    "Matryoshka, 5 fixed": {"activation": "batchtopk", "prefixes": "fixed"},
    "Matryoshka, 10 random": {"activation": "batchtopk", "prefixes": "random"},
}
"""Cells with k active latents a token."""
DENSE: Mapping[str, Mapping[str, Any]] = {
    "ReLU, dense": {"penalty": "l1", "lambda": 1e-2},
    "ReLU, density 1 %": {"penalty": "l1", "lambda": 1e-2},
    "JumpReLU": {"activation": "jumprelu", "penalty": "l0", "lambda": 1e-3},
    "gated": {"activation": "gated", "penalty": "l1", "lambda": 1e-2},
}
"""Cells whose penalty sets how many are active; at the start about half of them."""
FURTHER: Mapping[str, Mapping[str, Any]] = {
    "ReLU, resampling": {"penalty": "l1", "lambda": 1e-2, "revival": "resample"},
    "ReLU, l1 over decoder norm": {"penalty": "l1_decoder_norm", "lambda": 1e-2, "decoder": "free"},
    "ReLU, tanh": {"penalty": "tanh", "lambda": 1e-2},
    "ReLU, Matryoshka, 10 random": {"penalty": "l1", "lambda": 1e-2, "prefixes": "random"},
    **{
        name: {"activation": name, **row.example}
        for name, row in ACTIVATION_LABELS.items()
        if name not in ("relu", "topk", "batchtopk", "jumprelu", "gated")
    },
}
"""Timed at the root study's size alone."""
GROUPS = {"sparse": SPARSE, "dense": DENSE, "further": FURTHER}
"""What is timed in turn, and lies in memory together."""


def gemm(shape: Shape) -> Step:
    """The bare encoder product, by which all times are divided.

    Into memory that it keeps, as our steps do: a result of tens of MiB that is made anew each time
    costs up to as much as the product, for the pages that the system hands out.
    """
    w_dk = torch.randn(shape.d, shape.k_all) / shape.d**0.5
    u_nk = torch.empty(shape.batch, shape.k_all)
    return lambda x_nd: torch.mm(x_nd, w_dk, out=u_nk)


def step_of(name: str, choices: Mapping[str, Any], shape: Shape, store: ActivationStore) -> Step:
    """A whole training step: loss, gradient, clipping, Adam, unit rows, clocks."""
    trainer, steps = trainer_of(name, choices, shape, store), count()
    return lambda x_nd: trainer._step(next(steps), x_nd)


def trainer_of(
    name: str, choices: Mapping[str, Any], shape: Shape, store: ActivationStore
) -> Trainer:
    """The trainer of a cell with these choices, in the state that its name says."""
    cell = Cell.model_validate(
        {
            "expansion": shape.k_all / shape.d,
            "b_dec_init": "mean",  # the geometric median takes longer than all rounds
            **({"k": shape.k} if choices.get("activation") in ("topk", "batchtopk") else {}),
            **choices,
        }
    )
    settings = Train(batch_size=shape.batch, epochs=1000)
    trainer = Trainer(cell, settings, store, HOOK, seed=0, checkpoint=Path("none"))
    if name == "ReLU, density 1 %":
        _make_sparse(trainer)
    if "AuxK" in name:
        _let_die(trainer)
    return trainer


def _make_sparse(trainer: Trainer) -> None:
    """Biases at which each latent fires on 1 % of a batch."""
    batch, weights = next(trainer.batches.starting_at(0)), trainer.weights
    with torch.no_grad():
        u_nk = (batch - weights.b_dec) @ weights.W_enc
        # torch's quantile takes no tensor as large as L's
        largest_off = max(1, round((1 - DENSITY) * len(u_nk)))
        weights.b_enc.copy_(-u_nk.kthvalue(largest_off, dim=0).values)


def _let_die(trainer: Trainer) -> None:
    """A tenth of the latents silent: too weak for the k largest, but with something to revive."""
    dead = int(DEAD * trainer.weights.d_sae)
    with torch.no_grad():
        trainer.weights.W_enc[:, :dead].mul_(0.01)
        trainer.silent_k[:dead] = NEVER


def batches_of(store: ActivationStore, shape: Shape) -> list[Tensor]:
    """The batches of one pass."""
    rows = next(store.activations(HOOK, "train").batches(BATCHES * shape.batch))
    return list(torch.from_numpy(rows.copy()).split(shape.batch))
