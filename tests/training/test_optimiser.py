"""Schedules, the decoder's constraint, and what a resampling may touch."""

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import LATENT_AXIS, Weights, initial_weights, training_losses
from sae_repro.params import Cell
from sae_repro.training.optimiser import Optimiser, remove_radial
from sae_repro.training.resampling import resample, token_losses
from sae_repro.training.schedules import (
    control_factor,
    control_rate,
    learning_rate,
    penalty_warmup,
)

CELL = Cell(expansion=3, penalty="l1", lambda_=0.01, lambda_warmup=0.1)
D = 8


def prepared(cell: Cell = CELL, steps: int = 5) -> tuple[Weights, Optimiser, torch.Tensor]:
    x = torch.randn(256, D, generator=torch.Generator().manual_seed(0))
    weights = initial_weights(cell, D, x, np.random.default_rng(0), epsilon=0.1)
    optimiser = Optimiser(cell, weights)
    for _ in range(steps):
        loss = training_losses(
            cell, weights, x, lengths=[weights.d_sae], lambda_=0.01, epsilon=0.1
        ).loss
        optimiser.step(loss, 1e-2)
    return weights, optimiser, x


def test_learning_rate_warms_up_stays_and_decays() -> None:
    rates = [learning_rate(CELL, D, step, 1000) for step in range(1000)]
    peak = 0.08 / D**0.5
    assert rates[0] == pytest.approx(peak / 50)
    assert rates[24] == pytest.approx(peak / 2)
    assert all(rate == pytest.approx(peak) for rate in rates[50:800])
    assert rates[900] == pytest.approx(peak / 2)
    assert rates[999] == pytest.approx(peak / 200)


def test_the_default_learning_rate_is_that_of_the_width_and_any_other_stays() -> None:
    assert [CELL.peak_lr(d) for d in (16, 64, 256)] == pytest.approx([0.02, 0.01, 0.005])
    assert "null: 0.08 / √D" in str(Cell.model_fields["lr"].description)
    given = CELL.model_copy(update={"lr": 3e-4})
    assert {given.peak_lr(d) for d in (16, 64, 768)} == {3e-4}


def test_penalty_weight_warms_up() -> None:
    assert penalty_warmup(CELL, 49, 1000) == pytest.approx(0.5)
    assert penalty_warmup(CELL, 500, 1000) == 1.0
    assert penalty_warmup(CELL.model_copy(update={"lambda_warmup": 0.0}), 0, 1000) == 1.0


def test_the_controller_waits_for_the_warm_up_and_can_cross_a_short_run() -> None:
    assert control_rate(CELL, 99, 1000) == 0.0
    assert control_rate(CELL, 100, 1000) == pytest.approx(5 / 900)
    assert control_rate(CELL, 100_000, 1_000_000) == 3e-4
    # of a very short run: λ stays above 0
    assert control_rate(CELL, 5, 6) == 0.5


def test_the_controller_raises_lambda_from_the_target_on() -> None:
    cell = CELL.model_copy(update={"target_l0": 4.0})
    for l0, up in ((3.99, False), (4.0, True), (4.01, True)):
        assert (control_factor(cell, l0, 500, 1000) > 1) == up
        assert bool(control_factor(cell, torch.tensor(l0), 500, 1000) > 1) == up


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
    assert float(first_moment.norm() / 0.1) == pytest.approx(CELL.grad_clip, rel=1e-4)


JUMPRELU = Cell(expansion=3, activation="jumprelu", penalty="l0", lambda_=0.01)
GATED = Cell(expansion=3, activation="gated", penalty="l1", lambda_=0.01)
DEAD = [2, 7, 20]


@pytest.mark.parametrize("frozen", ["decoder", "encoder"])
def test_a_frozen_gradient_is_not_clipped_with_the_others(frozen: str) -> None:
    cell = Cell(expansion=3, penalty="l1", lambda_=0.01, frozen=frozen, grad_clip=1.0)
    weights, optimiser, _ = prepared(cell, steps=0)
    large = {"decoder": "W_dec", "encoder": "W_enc"}[frozen]
    for name, tensor in weights.named().items():
        tensor.grad = torch.full_like(tensor, 1e4 if name == large else 1e-3)
    optimiser.update(1e-2)
    # of b_enc Adam's first moment is a tenth of its gradient as it was
    torch.testing.assert_close(optimiser.moments("b_enc")[0], torch.full((3 * D,), 1e-4))
    assert not optimiser.moments(large)[0].any()


def marked() -> torch.Tensor:
    dead = torch.zeros(24, dtype=torch.bool)
    dead[DEAD] = True
    return dead


def living_part(weights: Weights, optimiser: Optimiser) -> dict[str, torch.Tensor]:
    """Copies of all that belongs to living latents, Adam's moments included."""
    alive = (~marked()).nonzero().flatten()
    found = {}
    for name, tensor in weights.named().items():
        for kind, t in zip(("", ".m", ".v"), (tensor, *optimiser.moments(name)), strict=True):
            axis = LATENT_AXIS.get(name)
            t = t.detach().clone()
            found[name + kind] = t if axis is None else t.index_select(axis, alive)
    return found


@pytest.mark.parametrize("cell", [CELL, JUMPRELU, GATED], ids=lambda c: c.activation)
def test_resampling_leaves_the_living_bit_for_bit_alone(cell: Cell) -> None:
    weights, optimiser, x = prepared(cell)
    before = living_part(weights, optimiser)
    assert resample(cell, weights, optimiser, marked(), x, np.random.default_rng(0)) == 3
    after = living_part(weights, optimiser)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("cell", [JUMPRELU, GATED], ids=lambda c: c.activation)
def test_a_revived_latent_starts_as_all_did(cell: Cell) -> None:
    weights, optimiser, x = prepared(cell)
    resample(cell, weights, optimiser, marked(), x, np.random.default_rng(0), epsilon=0.1)
    if weights.threshold is not None:
        assert weights.threshold[DEAD].tolist() == pytest.approx([0.1] * 3)
    else:
        assert not weights.r_mag[DEAD].any()
        assert not weights.b_mag[DEAD].any()
    for name in weights.named():
        if name in LATENT_AXIS:
            for moment in optimiser.moments(name):
                assert not moment.index_select(LATENT_AXIS[name], torch.tensor(DEAD)).any()
    living = ~marked()
    assert all(m.index_select(LATENT_AXIS[n], living.nonzero().flatten()).any()
               for n in ("W_enc", "W_dec") for m in optimiser.moments(n))  # fmt: skip


def test_the_published_resampling_is_as_published() -> None:
    """p ∝ loss, the token's own direction, unscaled; bias −0.05; Adam forgets everything."""
    cell = Cell(
        expansion=3, penalty="l1", lambda_=0.01, decoder="free", revival="resample_published"
    )
    weights, optimiser, x = prepared(cell)
    x = x + 3.0  # so that centred and uncentred directions differ
    resample(cell, weights, optimiser, marked(), x, np.random.default_rng(0))
    directions = torch.nn.functional.normalize(x, dim=1)
    for k in DEAD:
        row = weights.W_dec[k].detach()
        assert float((directions @ row).max()) == pytest.approx(1.0, abs=1e-6)
        torch.testing.assert_close(weights.W_enc[:, k], row)
        assert weights.b_enc[k].item() == pytest.approx(-0.05)
    assert not any(value.any() for value in optimiser.state().values())


def test_permuted_latents_train_on_as_they_were() -> None:
    """Moments move along: the next step after a permutation is the permuted next step."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(24))
    for cell in (CELL, JUMPRELU, GATED):
        results = []
        for permuted in (False, True):
            weights, optimiser, x = prepared(cell)
            if permuted:
                optimiser.permute(order)
            loss = training_losses(cell, weights, x, lengths=[24], lambda_=0.01, epsilon=0.1).loss
            optimiser.step(loss, 1e-2)
            if not permuted:
                optimiser.permute(order)
            results.append(weights.named())
        for name, tensor in results[0].items():
            torch.testing.assert_close(results[1][name], tensor, rtol=1e-5, atol=1e-6)


def test_thresholds_stay_positive() -> None:
    weights, optimiser, _ = prepared(JUMPRELU, steps=1)
    for tensor in weights.named().values():
        tensor.grad = torch.zeros_like(tensor)
    weights.threshold.grad = torch.ones_like(weights.threshold)
    for _ in range(50):
        optimiser.update(1e-1)
    assert not weights.threshold.any()


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


def test_a_revived_row_that_is_free_has_the_mean_norm_of_the_living() -> None:
    cell = Cell(expansion=3, penalty="l1_decoder_norm", lambda_=1e-2, decoder="free")
    weights, optimiser, x = prepared(cell)
    dead = torch.arange(24) % 5 == 0
    mean = weights.W_dec.detach()[~dead].norm(dim=1).mean()
    assert not 0.9 < mean < 1.1
    resample(cell, weights, optimiser, dead, x, np.random.default_rng(0))
    norms = weights.W_dec.detach()[dead].norm(dim=1)
    torch.testing.assert_close(norms, mean.expand_as(norms))


def test_tokens_without_loss_are_all_as_likely() -> None:
    """All that is left where the SAE explains its sample wholly: here one point, which is b_dec."""
    weights, optimiser, x = prepared()
    with torch.no_grad():
        weights.b_dec.zero_()
        weights.b_enc.fill_(-1.0)
    dead = torch.arange(24) < 3
    same = torch.zeros_like(x)
    assert resample(CELL, weights, optimiser, dead, same, np.random.default_rng(0)) == 3
    assert bool(weights.W_dec.isfinite().all())


def test_tokens_are_drawn_by_squared_loss() -> None:
    weights, _, x = prepared()
    losses = token_losses(CELL, weights, x, epsilon=0.0)
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
