"""The training loss and its gradient against a plain, dense restatement of the formulas."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import Weights, prefix_lengths, training_losses
from sae_repro.autoencoders.prefixes import prefix_reconstructions, prefix_share
from sae_repro.params import Cell

D, K, N = 5, 16, 7

ACTIVATIONS = {
    "topk": {"activation": "topk", "k": 3},
    "batchtopk": {"activation": "batchtopk", "k": 3},
}
PENALTIES = {
    "l1": {"penalty": "l1", "lambda": 0.3},
    "l1_decoder_norm": {"penalty": "l1_decoder_norm", "lambda": 0.3, "decoder": "free"},
}
PREFIXES = {
    "none": {},
    "fixed": {"prefixes": "fixed"},
    "random": {"prefixes": "random", "n_prefixes": 4},
}
REVIVALS = {"none": {}, "auxk": {"revival": "auxk", "dead_tokens": 10}}
COMBINATIONS = [
    Cell(expansion=K / D, reconstruction=reconstruction, **sparse, **prefix, **revival)
    for sparse, prefix, revival, reconstruction in itertools.product(
        [*ACTIVATIONS.values(), *PENALTIES.values()],
        PREFIXES.values(),
        REVIVALS.values(),
        ["mean", "sum"],
    )
]


def name(cell: Cell) -> str:
    return f"{cell.activation}-{cell.penalty}-{cell.prefixes}-{cell.revival}-{cell.reconstruction}"


def random_weights(seed: int) -> Weights:
    g = torch.Generator().manual_seed(seed)
    shapes = ((D, K), (K,), (K, D), (D,))
    return Weights(
        *(torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes)
    )


def dense_loss(
    cell: Cell, w: Weights, x: torch.Tensor, lengths: list[int], dead: torch.Tensor
) -> torch.Tensor:
    """The same loss, token by token and prefix by prefix."""
    u = (x - w.b_dec) @ w.W_enc + w.b_enc
    norm = w.W_dec.norm(dim=1)
    score = u.detach() * (norm.detach() if cell.decoder == "free" else 1.0)
    if cell.activation == "relu":
        mask = torch.ones_like(u)
    elif cell.activation == "topk":
        mask = torch.stack([(row >= row.sort().values[-cell.k]).double() for row in score])
    else:
        mask = (score >= score.flatten().sort().values[-cell.k * len(x)]).double()
    z = torch.relu(u) * mask
    over = D if cell.reconstruction == "mean" else 1
    total = torch.zeros((), dtype=torch.float64)
    for length in lengths:
        x_hat = z[:, :length] @ w.W_dec[:length] + w.b_dec
        total = total + ((x - x_hat) ** 2).sum(1).mean() / over / len(lengths)
        if cell.penalty == "l1":
            total = total + cell.lambda_ * z[:, :length].sum(1).mean() / len(lengths)
        if cell.penalty == "l1_decoder_norm":
            total = total + cell.lambda_ * (z * norm)[:, :length].sum(1).mean() / len(lengths)
    if cell.revival == "auxk" and dead.any():
        e = (x - z @ w.W_dec - w.b_dec).detach()
        k_aux = min(D // 2, int(dead.sum()))
        e_hat = torch.zeros_like(e)
        for n in range(len(x)):
            best = u[n, dead].detach().sort(descending=True).indices[:k_aux]
            chosen = dead.nonzero().flatten()[best]
            e_hat[n] = torch.relu(u[n, chosen]) @ w.W_dec[chosen]
        variance = ((x - x.mean(0)) ** 2).sum(1).mean() / over
        ratio = ((e - e_hat) ** 2).sum() / ((e - e.mean(0)) ** 2).sum()
        total = total + cell.auxk_coefficient * variance * ratio
    return total


@pytest.mark.parametrize("cell", COMBINATIONS, ids=name)
@pytest.mark.parametrize("n_dead", [0, 1, 6])
def test_value_and_gradient_equal_the_dense_formula(cell: Cell, n_dead: int) -> None:
    w = random_weights(1)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lengths = prefix_lengths(cell, K, np.random.default_rng(3))
    dead = torch.arange(K) >= K - n_dead
    ours = training_losses(cell, w, x, lengths=lengths, lambda_=cell.lambda_ or 0.0, dead_k=dead)
    theirs = dense_loss(cell, w, x, lengths, dead)
    torch.testing.assert_close(ours.loss, theirs, rtol=1e-10, atol=1e-12)
    tensors = list(w.named().values())
    for a, b in zip(
        torch.autograd.grad(ours.loss, tensors, allow_unused=True),
        torch.autograd.grad(theirs, tensors, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_gradcheck_of_a_matryoshka_loss() -> None:
    cell = Cell(expansion=K / D, penalty="l1", lambda_=0.3, prefixes="fixed")
    w = random_weights(5)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(6), dtype=torch.float64)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return training_losses(cell, Weights(*tensors), x, lengths=[2, 8, K], lambda_=0.3).loss

    assert torch.autograd.gradcheck(loss, tuple(w.named().values()))


def test_terms_sum_to_the_loss() -> None:
    cell = Cell(expansion=K / D, penalty="l1", lambda_=0.3, revival="auxk", dead_tokens=1)
    w = random_weights(7)
    x = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    dead = torch.arange(K) < 4
    losses = training_losses(cell, w, x, lengths=[K], lambda_=0.3, dead_k=dead)
    assert set(losses.terms) == {"reconstruction", "penalty", "auxk"}
    torch.testing.assert_close(losses.loss, sum(losses.terms.values()))


def test_auxk_is_zero_when_nothing_is_left_to_explain() -> None:
    cell = Cell(expansion=K / D, activation="topk", k=3, revival="auxk", dead_tokens=1)
    w = random_weights(9)
    constant = w.b_dec.detach().expand(N, D)
    dead = torch.ones(K, dtype=torch.bool)
    with torch.no_grad():
        w.W_dec.zero_()
    losses = training_losses(cell, w, constant, lengths=[K], lambda_=0.0, dead_k=dead)
    assert losses.terms["auxk"].item() == 0.0
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(losses.loss, [w.W_enc]))


@given(st.sets(st.integers(1, K - 1), max_size=6))
@settings(max_examples=40, deadline=None)
def test_one_decode_serves_all_prefixes(inner: set[int]) -> None:
    lengths = [*sorted(inner), K]
    w = random_weights(11)
    z = torch.rand(N, K, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    together = prefix_reconstructions(w, z, lengths)
    for row, length in zip(together, lengths, strict=True):
        torch.testing.assert_close(row, z[:, :length] @ w.W_dec[:length] + w.b_dec)
    share = [sum(length > k for length in lengths) / len(lengths) for k in range(K)]
    torch.testing.assert_close(prefix_share(lengths, z), torch.tensor(share, dtype=torch.float64))
