"""What many steps by hand come to: the reference's weights, and no trace of what they keep."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import Weights, initial_weights
from sae_repro.params import Cell
from sae_repro.training import optimiser as module
from sae_repro.training.optimiser import Optimiser
from sae_repro.training.steps import ByHand, Reference, layouts, step_of

D, N = 8, 48
CELLS = {
    "topk": Cell(expansion=6, activation="topk", k=2),
    "auxk": Cell(expansion=6, activation="topk", k=2, revival="auxk"),
    "matryoshka": Cell(expansion=6, activation="batchtopk", k=2, prefixes="fixed"),
    "relu": Cell(expansion=6, penalty="l1", lambda_=0.02),
    "free": Cell(expansion=6, penalty="tanh", lambda_=0.02, decoder="free"),
    "jumprelu": Cell(
        expansion=6, activation="jumprelu", penalty="l0", lambda_=0.01, jumprelu_bandwidth=0.1
    ),
    "gated": Cell(expansion=6, activation="gated", penalty="l1", lambda_=0.02),
    "gated-trained": Cell(
        expansion=6,
        activation="gated",
        gated_auxiliary="trained",
        penalty="l1_decoder_norm",
        decoder="free",
        lambda_=0.02,
    ),
}


def started(cell: Cell) -> tuple[Weights, Optimiser, torch.Tensor]:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((N * 8, D)).astype(np.float32))
    weights = initial_weights(cell, D, x, rng, epsilon=0.1)
    return weights, Optimiser(cell, weights), x


def trained(cell: Cell, *, by_hand: bool, steps: int = 200) -> Weights:
    """The weights after some steps, the gradient far beyond and within its bound in turn."""
    weights, optimiser, x = started(cell)
    step = ByHand(cell, weights, epsilon=0.1) if by_hand else Reference(cell, weights, 0.1)
    lengths = [48] if cell.prefixes == "none" else [3, 6, 12, 24, 48]
    dead = torch.arange(48) % 5 == 0 if cell.revival == "auxk" else None
    for number, batch in enumerate(list(x.split(N)) * (steps // 8)):
        scaled = batch * (1 + 9 * (number % 3 == 0))
        taken = step.take(scaled, lengths=lengths, lambda_=0.02, dead_k=dead)
        if taken.gradients is None:
            optimiser.step(taken.loss, 1e-3)
        else:
            optimiser.apply(taken.gradients, 1e-3)
    return weights


@pytest.mark.parametrize("name", CELLS)
def test_two_hundred_steps_end_where_the_references_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of a few latents, of which the last one is shorter."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 7 * D * 4)
    cell = CELLS[name].model_copy(update={"adam_eps": 1e-4})  # no division of noise by noise
    ours, theirs = (trained(cell, by_hand=by_hand).named() for by_hand in (True, False))
    for weight, tensor in theirs.items():
        assert float((ours[weight] - tensor).detach().abs().max()) <= 1e-6, weight


@pytest.mark.parametrize("name", CELLS)
def test_a_step_leaves_nothing_behind_that_changes_the_next(name: str) -> None:
    """Memory, and BatchTopK's last threshold: as after a resume, to the bit."""
    cell = CELLS[name]
    weights, _, x = started(cell)
    lengths = [48] if cell.prefixes == "none" else [3, 6, 12, 24, 48]
    dead = torch.arange(48) % 5 == 0 if cell.revival == "auxk" else None
    used = ByHand(cell, weights, epsilon=0.1)
    for scale in (10.0, 0.1, 3.0):
        used.take(x[:N] * scale, lengths=lengths, lambda_=0.02, dead_k=dead)
    for kernel in (used, ByHand(cell, weights, epsilon=0.1)):
        taken = kernel.take(x[N : 2 * N], lengths=lengths, lambda_=0.02, dead_k=dead)
        assert taken.gradients is not None
        found = [*taken.gradients.rows(0, 48), *taken.gradients.small.values()]
        if kernel is used:
            before = [array.copy() for array in found], taken.loss
    assert all(np.array_equal(a, b) for a, b in zip(before[0], found, strict=True))
    assert before[1] == taken.loss


@pytest.mark.parametrize("below", [0.0, 1.0])
@pytest.mark.parametrize("name", CELLS)
def test_a_batch_in_which_nothing_fires_teaches_b_dec_alone(
    name: str, below: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "SPARSE_BELOW", below)
    monkeypatch.setattr(layouts, "DENSE_TO", 0)
    cell = CELLS[name].model_copy(update={"revival": "none"})
    weights, _, x = started(cell)
    with torch.no_grad():
        weights.b_enc.fill_(-100.0)
    lengths = [48] if cell.prefixes == "none" else [3, 6, 12, 24, 48]
    taken = ByHand(cell, weights, epsilon=0.1).take(x, lengths=lengths, lambda_=0.02, dead_k=None)
    assert taken.gradients is not None
    assert float(taken.code.l0) == 0 and not taken.code.fired_k().any()
    assert taken.code.smallest(None) == torch.inf
    small = dict(taken.gradients.small)
    direct = 2 * (weights.b_dec.detach() - x).sum(0) / x.numel()
    if cell.gated_auxiliary == "trained":
        direct *= 2  # of both reconstructions
    torch.testing.assert_close(torch.from_numpy(small.pop("b_dec")), direct)
    assert not any(t.any() for t in (*taken.gradients.rows(0, 48), *small.values()))


def test_autograd_takes_the_steps_under_autocast_and_of_formulas_of_its_own() -> None:
    cell = CELLS["topk"]
    weights, _, _ = started(cell)
    assert isinstance(step_of(cell, weights, epsilon=0.1), ByHand)
    assert isinstance(step_of(cell, weights, epsilon=0.1, autocast=True), Reference)
    of_its_own = cell.model_copy(update={"activation": "new"})
    assert isinstance(step_of(of_its_own, weights, epsilon=0.1), Reference)


def test_weights_that_lie_by_dimension_are_laid_out_by_latent() -> None:
    """The optimiser reads rows of W_encᵀ; weights from elsewhere may have them as columns."""
    cell = CELLS["topk"]
    weights, _, _ = started(cell)
    other = replace(weights, W_enc=weights.W_enc.detach().contiguous())
    Optimiser(cell, other)
    assert other.W_enc.T.is_contiguous()
    assert torch.equal(other.W_enc, weights.W_enc)
