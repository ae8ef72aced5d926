"""Beside other implementations: equal to SAELens where it is right, to the paper where not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sae_repro.autoencoders import Weights, batch_top_k, prefix_lengths, top_k, training_losses
from sae_repro.autoencoders.activations import jump_relu, step
from sae_repro.params import Cell
from sae_repro.training.steps import ByHand, layouts

D, K, N = 6, 12, 40


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaves(weights: Weights) -> Weights:
    return Weights(**{n: t.clone().requires_grad_() for n, t in weights.named().items()})


def gated_weights() -> Weights:
    w = Weights(normal(0, D, K), normal(1, K), normal(2, K, D), normal(3, D))
    return leaves(replace(w, b_mag=normal(4, K), r_mag=0.3 * normal(5, K)))


def gradients(loss: Tensor, w: Weights) -> dict[str, Tensor | None]:
    found = torch.autograd.grad(loss, list(w.named().values()), allow_unused=True)
    return dict(zip(w.named(), found, strict=True))


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("ours_is", ["jump_relu", "step"])
def test_jumprelu_and_its_straight_through_gradients_are_saelens(
    ours_is: str, epsilon: float
) -> None:
    theirs = pytest.importorskip("sae_lens.saes.jumprelu_sae")
    ours, peer = (jump_relu, theirs.JumpReLU) if ours_is == "jump_relu" else (step, theirs.Step)
    above = normal(2, 5000, K)
    found = []
    for apply in (ours, lambda u, theta, e: peer.apply(u, theta, e, False)):
        u, theta = normal(0, 5000, K).requires_grad_(), normal(1, K).abs().requires_grad_()
        z = apply(u, theta, epsilon)
        found.append((z, *torch.autograd.grad((z * above).sum(), [u, theta], allow_unused=True)))
    assert found[0][2].count_nonzero() == K
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


class TestGatedAuxiliary:
    """Eq. 8 of arXiv:2404.16014: the auxiliary reconstruction uses a *frozen* decoder."""

    cell = Cell(expansion=K / D, activation="gated", penalty="l1", lambda_=1.0,
                reconstruction="sum")  # fmt: skip
    x = normal(9, N, D)

    def ours(self, w: Weights, **changes: Any) -> Tensor:
        cell = self.cell.model_copy(update=changes)
        return training_losses(cell, w, self.x, lengths=[K], lambda_=1.0).terms["gate"]

    def theirs(self, w: Weights, *, term: str = "auxiliary_reconstruction_loss", l1: float = 0.0
               ) -> tuple[Tensor, dict[str, Tensor | None]]:  # fmt: skip
        """(SAELens' term, or the whole "loss"; its gradients by our names)."""
        pytest.importorskip("sae_lens")
        from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
        from sae_lens.saes.sae import TrainStepInput

        config = GatedTrainingSAEConfig(d_in=D, d_sae=K, dtype="float64")
        sae = GatedTrainingSAE(config)
        named = {"b_gate" if n == "b_enc" else n: t for n, t in w.named().items()}
        sae.load_state_dict(named)
        out = sae.training_forward_pass(TrainStepInput(self.x, {"l1": l1}, None, 0, False))
        value = out.loss if term == "loss" else out.losses[term]
        tensors = [getattr(sae, name) for name in named]
        found = torch.autograd.grad(value, tensors, allow_unused=True)
        return value, dict(zip(w.named(), found, strict=True))

    def test_saelens_has_its_value_but_lets_the_decoder_learn_from_it(self) -> None:
        w = gated_weights()
        term, theirs = self.theirs(w)
        ours = gradients(self.ours(w), w)
        torch.testing.assert_close(self.ours(w), term)
        for name in ("W_enc", "b_enc"):
            torch.testing.assert_close(ours[name], theirs[name])
        assert theirs["W_dec"] is not None
        assert theirs["W_dec"].norm() > 0.1
        assert ours["W_dec"] is None

    def test_trained_it_is_saelens_in_every_gradient(self) -> None:
        w = gated_weights()
        term, theirs = self.theirs(w)
        ours = self.ours(w, gated_auxiliary="trained")
        torch.testing.assert_close(ours, term)
        torch.testing.assert_close(gradients(ours, w), theirs)

    @pytest.mark.parametrize("below", [0.0, 1.0], ids=["all entries", "few"])
    def test_a_step_by_hand_is_saelens_step(
        self, below: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Free rows, their norms in the penalty, the auxiliary loss trained: no other choice."""
        monkeypatch.setattr(layouts, "SPARSE_BELOW", below)
        monkeypatch.setattr(layouts, "DENSE_TO", 0)
        cell = Cell(expansion=K / D, activation="gated", gated_auxiliary="trained",
                    penalty="l1_decoder_norm", decoder="free", lambda_=0.7,
                    reconstruction="sum")  # fmt: skip
        w = gated_weights()
        loss, theirs = self.theirs(w, term="loss", l1=0.7)
        taken = ByHand(cell, w, epsilon=0.0).take(self.x, lengths=[K], lambda_=0.7, dead_k=None)
        assert taken.loss == pytest.approx(loss.item(), rel=1e-12)
        assert taken.gradients is not None
        encoder, decoder = taken.gradients.rows(0, K)
        ours = {**taken.gradients.small, "W_enc": encoder.T, "W_dec": decoder}
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            torch.testing.assert_close(torch.from_numpy(ours[name]), gradient)

    def test_b_dec_learns_from_it_as_the_centre_only(self) -> None:
        w = gated_weights()
        got = gradients(self.ours(w), w)["b_dec"]
        centre = w.b_dec.detach().clone().requires_grad_()
        gate = torch.relu((self.x - centre) @ w.W_enc.detach() + w.b_enc.detach())
        x_hat = gate @ w.W_dec.detach() + w.b_dec.detach()
        term = (self.x - x_hat).square().sum() / N
        (expected,) = torch.autograd.grad(term, centre)
        assert expected.norm() > 0.1
        torch.testing.assert_close(got, expected)

    def test_b_dec_learns_nothing_from_it_where_x_is_not_centred(self) -> None:
        w = gated_weights()
        assert gradients(self.ours(w, apply_b_dec_to_input=False), w)["b_dec"] is None

    def test_magnitudes_learn_nothing_from_it(self) -> None:
        w = gated_weights()
        found = gradients(self.ours(w), w)
        assert found["b_mag"] is None
        assert found["r_mag"] is None


def test_a_bare_square_root_has_no_gradient_where_latents_are_silent_ours_has() -> None:
    w = leaves(
        Weights(normal(0, D, K), torch.full((K,), -50.0).double(), normal(2, K, D), normal(3, D))
    )
    x = normal(9, N, D)
    cell = Cell(expansion=K / D, penalty="sqrt", lambda_=1.0, decoder="free")
    losses = training_losses(cell, w, x, lengths=[K], lambda_=1.0)
    assert not losses.z_nk.any()
    bare = (losses.z_nk * w.W_dec.norm(dim=1)) ** 0.5
    (of_z,) = torch.autograd.grad(bare.sum(), losses.z_nk, retain_graph=True)
    (of_decoder,) = torch.autograd.grad(bare.sum(), w.W_dec, retain_graph=True)
    assert not of_z.isfinite().any()
    assert of_decoder.isnan().all()
    (of_z,) = torch.autograd.grad(losses.terms["penalty"], losses.z_nk, retain_graph=True)
    found = gradients(losses.terms["penalty"], w)
    assert all(g is None or g.isfinite().all() for g in (of_z, *found.values()))
    assert of_z.count_nonzero() == of_z.numel()


@pytest.mark.parametrize("select", [top_k, batch_top_k])
def test_at_most_k_fire_also_among_equals_and_none_that_is_not_positive(
    select: Callable[[torch.Tensor, int], torch.Tensor],
) -> None:
    """`u >= kth largest` as a mask would let all the equal ones, and negative ones, through."""
    equal = torch.ones(N, K)
    assert int((select(equal, 3) > 0).sum()) == 3 * N
    few = -torch.ones(N, K)
    few[:, 5] = 2.0
    few[:, 6] = 0.0
    z = select(few, 3)
    assert torch.equal(z, torch.zeros(N, K).index_fill(1, torch.tensor([5]), 2.0))


@pytest.mark.parametrize(("prefixes", "share"), [("random_published", 0.177), ("random", 0.853)])
def test_the_published_draw_of_prefixes_has_few_short_ones(prefixes: str, share: float) -> None:
    """√32/√1023 of single draws are ≤ 32, where the truncated Pareto has .853 of them."""
    cell = Cell(expansion=1, activation="topk", k=1, prefixes=prefixes, n_prefixes=2)
    rng = np.random.default_rng(0)
    drawn = [prefix_lengths(cell, 1024, rng)[0] for _ in range(4000)]
    assert np.mean(np.array(drawn) <= 32) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("sparse", [{"activation": "topk", "k": 2}, {"penalty": "l1", "lambda": 1}],
                         ids=["topk", "relu"])  # fmt: skip
def test_auxk_teaches_the_encoder_of_dead_latents_and_no_other(sparse: dict[str, Any]) -> None:
    """With z, or a detached u, in the place of u the encoder of the dead would learn nothing."""
    w = leaves(Weights(normal(0, D, K), torch.zeros(K).double(), normal(2, K, D),
                       torch.zeros(D).double()))  # fmt: skip
    dead = torch.arange(K) >= K - 4
    cell = Cell(expansion=K / D, revival="auxk", dead_tokens=1, **sparse)
    losses = training_losses(cell, w, normal(9, N, D), lengths=[K], lambda_=1.0, dead_k=dead)
    found = gradients(losses.terms["auxk"], w)
    for name, axis in (("W_enc", 0), ("W_dec", 1)):
        gradient = found[name]
        assert gradient is not None
        assert torch.equal(gradient.norm(dim=axis) > 0, dead)
