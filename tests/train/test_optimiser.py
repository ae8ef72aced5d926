"""Schedules, the decoder's constraint, and what a resampling may touch."""

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import Weights, initial_weights, training_losses
from sae_repro.params import Cell
from sae_repro.train.optimiser import Optimiser, learning_rate, penalty_weight, remove_radial
from sae_repro.train.resample import resample, token_losses

CELL = Cell(expansion=3, penalty="l1", lambda_=0.01, lambda_warmup=0.1)
D = 8


def prepared(cell: Cell = CELL, steps: int = 5) -> tuple[Weights, Optimiser, torch.Tensor]:
    x = torch.randn(256, D, generator=torch.Generator().manual_seed(0))
    weights = initial_weights(cell, D, x, np.random.default_rng(0))
    optimiser = Optimiser(cell, weights)
    for _ in range(steps):
        loss = training_losses(cell, weights, x, lengths=[weights.d_sae], lambda_=0.01).loss
        optimiser.step(loss, 1e-2)
    return weights, optimiser, x


def test_learning_rate_warms_up_stays_and_decays() -> None:
    rates = [learning_rate(CELL, step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(CELL.lr / 50)
    assert rates[24] == pytest.approx(CELL.lr / 2)
    assert all(rate == CELL.lr for rate in rates[50:800])
    assert rates[900] == pytest.approx(CELL.lr / 2)
    assert rates[999] == pytest.approx(CELL.lr / 200)


def test_penalty_weight_warms_up() -> None:
    assert penalty_weight(CELL, 49, 1000) == pytest.approx(0.005)
    assert penalty_weight(CELL, 500, 1000) == 0.01
    assert penalty_weight(Cell(expansion=1, activation="topk", k=1), 5, 10) == 0.0


def test_rows_stay_unit_under_unit_norm_and_move_under_free() -> None:
    weights, _, _ = prepared()
    torch.testing.assert_close(weights.W_dec.norm(dim=1), torch.ones(3 * D))
    free = Cell(expansion=3, penalty="l1_decoder_norm", lambda_=0.01, decoder="free")
    weights, _, _ = prepared(free)
    assert not torch.allclose(weights.W_dec.norm(dim=1), torch.full((3 * D,), 0.1))


def test_the_radial_part_of_the_gradient_is_gone() -> None:
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.normalize(rows, dim=1).requires_grad_()
    rows.grad = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    tangent = rows.grad - (rows.grad * rows).sum(1, keepdim=True) * rows
    remove_radial(rows)
    torch.testing.assert_close(rows.grad, tangent.detach())
    torch.testing.assert_close((rows.grad * rows).sum(1), torch.zeros(5), atol=1e-6, rtol=0)


def test_the_gradient_is_clipped_to_its_bound() -> None:
    weights, optimiser, x = prepared(steps=0)
    loss = 1e6 * training_losses(CELL, weights, x, lengths=[24], lambda_=0.01).loss
    optimiser.step(loss, 1e-3)
    first_moment = torch.cat([optimiser.moments(n)[0].flatten() for n in weights.named()])
    # m = (1 − β₁)·g after one step
    assert float(first_moment.norm() / 0.1) == pytest.approx(1.0, rel=1e-4)


def test_resampling_leaves_the_living_bit_for_bit_alone() -> None:
    weights, optimiser, x = prepared()
    dead = torch.zeros(24, dtype=torch.bool)
    dead[[2, 7, 20]] = True
    before = {n: t.detach().clone() for n, t in weights.named().items()}
    moments = {n: [m.clone() for m in optimiser.moments(n)] for n in before}
    assert resample(CELL, weights, optimiser, dead, x, np.random.default_rng(0)) == 3
    axis = {"W_enc": (slice(None), ~dead), "W_dec": (~dead,), "b_enc": (~dead,), "b_dec": ()}
    for name, tensor in weights.named().items():
        assert torch.equal(tensor[axis[name]], before[name][axis[name]])
        for now, then in zip(optimiser.moments(name), moments[name], strict=True):
            assert torch.equal(now[axis[name]], then[axis[name]])


def test_resampled_latents_point_at_tokens_and_start_afresh() -> None:
    cell = CELL.model_copy(update={"revival": "resample", "resample_bias": -0.05})
    weights, optimiser, x = prepared(cell)
    dead = torch.zeros(24, dtype=torch.bool)
    dead[[2, 7, 20]] = True
    living = weights.W_enc[:, ~dead].norm(dim=0).mean()
    resample(cell, weights, optimiser, dead, x, np.random.default_rng(0))
    directions = torch.nn.functional.normalize(x - weights.b_dec, dim=1)
    for k in (2, 7, 20):
        row = weights.W_dec[k].detach()
        assert float((directions.detach() @ row).max()) == pytest.approx(1.0, abs=1e-5)
        torch.testing.assert_close(weights.W_enc[:, k], row * 0.2 * living)
        assert float(weights.b_enc[k]) == pytest.approx(-0.05)
        for name, where in (("W_dec", (k,)), ("W_enc", (slice(None), k)), ("b_enc", (k,))):
            assert not any(m[where].any() for m in optimiser.moments(name))


def test_tokens_are_drawn_by_squared_loss() -> None:
    weights, _, x = prepared()
    losses = token_losses(CELL, weights, x)
    with torch.no_grad():
        z = torch.relu((x - weights.b_dec) @ weights.W_enc + weights.b_enc)
        direct = (x - z @ weights.W_dec - weights.b_dec).square().sum(1)
    torch.testing.assert_close(losses, direct, rtol=1e-4, atol=1e-5)
    # one token carries nearly all of the loss: every dead latent takes its direction
    x = x.clone()
    x[17] *= 100
    cell, dead = CELL, torch.ones(24, dtype=torch.bool)
    optimiser = Optimiser(cell, weights)
    resample(cell, weights, optimiser, dead, x, np.random.default_rng(0))
    direction = torch.nn.functional.normalize(x[17] - weights.b_dec, dim=0)
    torch.testing.assert_close(weights.W_dec @ direction, torch.ones(24))
