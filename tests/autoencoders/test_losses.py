"""The training loss and its gradient against a plain, dense restatement of the formulas."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import Weights, prefix_lengths, training_losses
from sae_repro.autoencoders.prefixes import prefix_error, prefix_fraction
from sae_repro.params import Cell, axes
from sae_repro.params.axis_labels import ACTIVATION_LABELS

D, K, N = 5, 16, 7

EPSILON = 0.4

SPARSE = [
    *({"activation": name, **row.example} for name, row in ACTIVATION_LABELS.items()),
    *(
        {"activation": activation, "penalty": penalty, "lambda": 0.3, "decoder": decoder}
        for activation in ("relu", "jumprelu", "gated")
        for penalty, decoder in (
            ("l1", "unit_norm"),
            ("l1_decoder_norm", "free"),
            ("log", "free"),
            ("tanh", "unit_norm"),
            ("tanh", "free"),
            ("sqrt", "free"),
        )
    ),
    *(
        {
            "activation": "gated",
            "gated_auxiliary": "trained",
            "penalty": penalty,
            "lambda": 0.3,
            "decoder": decoder,
        }
        for penalty, decoder in (("l1", "unit_norm"), ("l1_decoder_norm", "free"))
    ),
    {"activation": "jumprelu", "penalty": "l0", "lambda": 0.3},
    {"activation": "jumprelu", "penalty": "l0_quadratic", "lambda": 0.3, "target_l0": 5},
]
PREFIXES = [
    {},
    {"prefixes": "fixed"},
    {"prefixes": "random", "n_prefixes": 4},
    {"prefixes": "random_published", "n_prefixes": 4},
    {"prefixes": "fixed", "prefix_weights": [5, 1, 0.5, 2, 1]},
    {"prefixes": "all"},
    {"prefixes": "hierarchical"},
    {"prefixes": "hierarchical", "prefix_k": [1, 3], "prefix_weights": [2, 0.5]},
]
REVIVALS = [{}, {"revival": "auxk", "dead_tokens": 10}]
FREE_TOPK = [{"activation": name, "k": 3, "decoder": "free"} for name in ("topk", "batchtopk")]
COMBINATIONS = [
    Cell(expansion=K / D, reconstruction=reconstruction, **sparse, **prefix, **revival)
    for sparse, prefix, revival, reconstruction in itertools.product(
        [*SPARSE, *FREE_TOPK], PREFIXES, REVIVALS, ["mean", "sum"]
    )
    if "k" in sparse or not axes.PREFIXES[prefix.get("prefixes", "none")].by_token
]


def name(cell: Cell) -> str:
    return "-".join(
        [cell.activation, cell.gated_auxiliary, cell.penalty, cell.decoder, cell.prefixes,
         cell.revival, cell.reconstruction, *(["weighted"] if cell.prefix_weights else [])]
    )  # fmt: skip


def random_weights(seed: int, cell: Cell) -> Weights:
    g = torch.Generator().manual_seed(seed)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()

    weights = Weights(tensor(D, K), tensor(K), tensor(K, D), tensor(D))
    for name in cell.activation_row.extra:
        value = tensor(K)
        positive = name == "threshold"
        setattr(weights, name, value.detach().abs().requires_grad_() if positive else value)
    return weights


def jump(u: torch.Tensor, theta: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """value·1[u > θ] whose gradient for θ is −(value/ε)·rect((u − θ)/ε), by plain autograd."""
    near = ((u - theta).abs() < EPSILON / 2).double()
    straight = -(value.detach() / EPSILON * near) * (theta - theta.detach())
    return value * (u > theta).double() + straight


def dense_code(cell: Cell, w: Weights, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(u, z); of a gated SAE (π, z)."""
    c = x - w.b_dec
    u = c @ w.W_enc + w.b_enc
    score = u.detach() * (w.W_dec.detach().norm(dim=1) if cell.decoder == "free" else 1.0)
    if cell.activation == "gated":
        magnitude = torch.relu(torch.exp(w.r_mag) * (c @ w.W_enc) + w.b_mag)
        return u, (u > 0).double() * magnitude
    if cell.activation == "jumprelu":
        near = ((u - w.threshold).abs() < EPSILON / 2).double()
        straight = -(w.threshold.detach() / EPSILON * near) * (w.threshold - w.threshold.detach())
        return u, u * (u > w.threshold).double() + straight
    if cell.activation == "relu":
        return u, torch.relu(u)
    if cell.activation == "topk":
        mask = torch.stack([(row >= row.sort().values[-cell.k]).double() for row in score])
        return u, torch.relu(u) * mask
    if cell.activation == "batchtopk":
        mask = (score >= score.flatten().sort().values[-cell.k * len(x)]).double()
        return u, torch.relu(u) * mask
    raise NotImplementedError(f"restate activation {cell.activation} densely here")


def dense_penalty(cell: Cell, w: Weights, u: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """φ [N, K]."""
    z = torch.relu(u) if cell.activation == "gated" else z
    a = z * (w.W_dec.norm(dim=1) if cell.decoder == "free" else 1.0)
    match cell.penalty:
        case "l1":
            return z
        case "l1_decoder_norm":
            return a
        case "log":
            return torch.log(a + 0.1) - np.log(0.1)
        case "tanh":
            return torch.tanh(4 * a)
        case "sqrt":
            return (a + 1e-4) ** 0.5 - 0.01
        case "l0" | "l0_quadratic":
            return jump(u, w.threshold, torch.ones_like(u))
        case _:
            raise NotImplementedError(f"restate penalty {cell.penalty} densely here")


def dense_prefixes(
    cell: Cell, w: Weights, z: torch.Tensor, lengths: list[int]
) -> list[tuple[torch.Tensor, float]]:
    """Of each prefix the entries [N, K] that it keeps, as 0 and 1, and its part in the loss."""
    weight = cell.prefix_weights or [1.0] * len(lengths)
    shares = [float(each) / sum(weight) for each in weight]
    if cell.prefixes == "hierarchical":
        score = z.detach() * (w.W_dec.detach().norm(dim=1) if cell.decoder == "free" else 1.0)
        rows = score if cell.activation == "topk" else score.reshape(1, -1)
        per = 1 if cell.activation == "topk" else len(z)
        kept = [
            (rows >= rows.sort(dim=1).values[:, -k * per, None]).double().view_as(z)
            for k in cell.prefix_k or range(1, cell.k + 1)
        ]
        return list(zip(kept, shares, strict=True))
    if cell.prefixes == "all":
        lengths, shares = list(range(1, K + 1)), [1 / K] * K
    index = torch.arange(K).expand_as(z)
    return [((index < end).double(), part) for end, part in zip(lengths, shares, strict=True)]


def dense_loss(
    cell: Cell, w: Weights, x: torch.Tensor, lengths: list[int], dead: torch.Tensor
) -> torch.Tensor:
    """The same loss, token by token and prefix by prefix."""
    u, z = dense_code(cell, w, x)
    over = D if cell.reconstruction == "mean" else 1
    total = torch.zeros((), dtype=torch.float64)
    for kept, share in dense_prefixes(cell, w, z, lengths):
        x_hat = (z * kept) @ w.W_dec + w.b_dec
        total = total + ((x - x_hat) ** 2).sum(1).mean() / over * share
        if cell.penalty not in ("none", "l0_quadratic"):
            phi = dense_penalty(cell, w, u, z) * kept
            total = total + cell.lambda_ * phi.sum(1).mean() * share
        if cell.activation == "gated":
            w_dec, b_dec = w.W_dec, w.b_dec
            if cell.gated_auxiliary == "frozen":
                w_dec, b_dec = w_dec.detach(), b_dec.detach()
            by_gate = (torch.relu(u) * kept) @ w_dec + b_dec
            total = total + ((x - by_gate) ** 2).sum(1).mean() / over * share
    if cell.penalty == "l0_quadratic":
        l0 = dense_penalty(cell, w, u, z).sum(1).mean()
        total = total + cell.lambda_ * (l0 / cell.target_l0 - 1) ** 2
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


def test_every_value_of_the_axes_is_restated() -> None:
    assert {cell.activation for cell in COMBINATIONS} == set(axes.ACTIVATIONS)
    assert {cell.penalty for cell in COMBINATIONS} == set(axes.PENALTIES)
    assert {cell.prefixes for cell in COMBINATIONS} == set(axes.PREFIXES)
    auxiliary = {row.name for row in axes.REVIVALS.values() if row.auxiliary}
    assert auxiliary <= {cell.revival for cell in COMBINATIONS}


@pytest.mark.parametrize("cell", COMBINATIONS, ids=name)
@pytest.mark.parametrize("n_dead", [0, 1, 6])
def test_value_and_gradient_equal_the_dense_formula(cell: Cell, n_dead: int) -> None:
    w = random_weights(1, cell)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lengths = prefix_lengths(cell, K, np.random.default_rng(3))
    dead = torch.arange(K) >= K - n_dead
    ours = training_losses(
        cell, w, x, lengths=lengths, lambda_=cell.lambda_ or 0.0, dead_k=dead, epsilon=EPSILON
    )
    theirs = dense_loss(cell, w, x, lengths, dead)
    torch.testing.assert_close(ours.loss, theirs, rtol=1e-10, atol=1e-12)
    tensors = list(w.named().values())
    for a, b in zip(
        torch.autograd.grad(ours.loss, tensors, allow_unused=True),
        torch.autograd.grad(theirs, tensors, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("cell", COMBINATIONS[::7], ids=name)
def test_single_precision_agrees_with_double(cell: Cell) -> None:
    w = random_weights(1, cell)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lengths = prefix_lengths(cell, K, np.random.default_rng(3))
    single = Weights(**{n: t.detach().float().requires_grad_() for n, t in w.named().items()})
    options = {"lengths": lengths, "lambda_": cell.lambda_ or 0.0, "epsilon": EPSILON}
    wide, narrow = (
        torch.autograd.grad(
            training_losses(cell, weights, values, **options).loss,
            list(weights.named().values()),
            allow_unused=True,
        )
        for weights, values in ((w, x), (single, x.float()))
    )
    for a, b in zip(wide, narrow, strict=True):
        if a is not None:
            assert float((a - b.double()).norm()) <= 1e-5 * max(float(a.norm()), 1e-3)


SMOOTH = [
    {"penalty": "l1", "lambda": 0.3},
    {"penalty": "l1_decoder_norm", "lambda": 0.3, "decoder": "free"},
    {"penalty": "log", "lambda": 0.3, "decoder": "free"},
    {"penalty": "tanh", "lambda": 0.3, "decoder": "free"},
    {"penalty": "sqrt", "lambda": 0.3, "decoder": "free"},
    {"activation": "topk", "k": 3},
    {"activation": "batchtopk", "k": 3},
]


@pytest.mark.parametrize("choices", SMOOTH, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize("lengths", [[K], [2, 8, K]], ids=["whole", "prefixes"])
def test_gradcheck(choices: dict[str, object], lengths: list[int]) -> None:
    cell = Cell(expansion=K / D, **choices)
    w = random_weights(5, cell)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(6), dtype=torch.float64)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return training_losses(cell, Weights(*tensors), x, lengths=lengths, lambda_=0.3).loss

    assert torch.autograd.gradcheck(loss, tuple(w.named().values()))


def test_no_penalty_has_a_gradient_that_is_not_a_number() -> None:
    """A bare square root or logarithm would, where latents are silent."""
    for sparse in SPARSE:
        cell = Cell(expansion=K / D, **sparse)
        w = random_weights(1, cell)
        with torch.no_grad():
            w.b_enc.fill_(-100.0)  # silent, all of them
        x = torch.randn(N, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        loss = training_losses(cell, w, x, lengths=[K], lambda_=0.3, epsilon=EPSILON).loss
        gradients = torch.autograd.grad(loss, list(w.named().values()), allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in gradients)


def test_loss_is_the_sum_of_its_terms() -> None:
    cell = Cell(expansion=K / D, penalty="l1", lambda_=0.3, revival="auxk", dead_tokens=1)
    w = random_weights(7, cell)
    x = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    dead = torch.arange(K) < 4
    losses = training_losses(cell, w, x, lengths=[K], lambda_=0.3, dead_k=dead)
    assert set(losses.terms) == {"reconstruction", "penalty", "auxk"}
    torch.testing.assert_close(losses.loss, sum(losses.terms.values()))


def test_auxk_is_zero_when_nothing_is_left_to_explain() -> None:
    cell = Cell(expansion=K / D, activation="topk", k=3, revival="auxk", dead_tokens=1)
    w = random_weights(9, cell)
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
    w = random_weights(11, Cell(expansion=K / D, penalty="l1", lambda_=0.3))
    z = torch.rand(N, K, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(13), dtype=torch.float64)
    error, x_hat = prefix_error(w, x, z, lengths, N)
    apart = [z[:, :length] @ w.W_dec[:length] + w.b_dec for length in lengths]
    mean = torch.stack([(x - each).square().sum() for each in apart]).mean() / N
    torch.testing.assert_close(error, mean)
    torch.testing.assert_close(x_hat, apart[-1].detach())
    share = [sum(length > k for length in lengths) / len(lengths) for k in range(K)]
    torch.testing.assert_close(
        prefix_fraction(lengths, z), torch.tensor(share, dtype=torch.float64)
    )
