"""Steps by hand against autograd: every combination that the schema allows."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sae_repro.autoencoders import Weights, initial_weights, prefix_lengths
from sae_repro.params import Cell
from sae_repro.params.axes import ACTIVATIONS, PENALTIES
from sae_repro.training.steps import ByHand, Reference, Taken, layouts

D, N = 6, 40
LARGEST_ERROR = {torch.float32: 5e-6, torch.float64: 1e-13}


PREFIXES: dict[str, dict[str, Any]] = {
    "none": {},
    "fixed": {"prefixes": "fixed"},
    "weighted": {"prefixes": "fixed", "prefix_shares": [0.25, 0.25, 0.25, 0.25],
                 "prefix_weights": [4, 1, 2, 0.5]},
    "all": {"prefixes": "all"},
    "hierarchical": {"prefixes": "hierarchical"},
    "hierarchical-weighted": {"prefixes": "hierarchical", "prefix_k": [1, 3],
                              "prefix_weights": [2, 0.5]},
}  # fmt: skip


def combinations() -> dict[str, Cell]:
    """By name: all cells that differ in what a step computes; prefixes come to it as lengths."""
    found = {}
    for activation, penalty, prefixes, decoder, auxk, auxiliary in itertools.product(
        ACTIVATIONS, PENALTIES, PREFIXES, ("unit_norm", "free"), (False, True),
        ("", "frozen", "trained"),
    ):  # fmt: skip
        if ACTIVATIONS[activation].gated != bool(auxiliary):
            continue
        choices: dict[str, Any] = {
            "expansion": 4, "activation": activation, "penalty": penalty, **PREFIXES[prefixes],
            "decoder": decoder, "revival": "auxk" if auxk else "none",
        }  # fmt: skip
        if ACTIVATIONS[activation].l0_set_by == "k":
            choices["k"] = 3
        if auxiliary:
            choices["gated_auxiliary"] = auxiliary
        if activation == "jumprelu":
            choices["jumprelu_bandwidth"] = 0.4
        if penalty != "none":
            choices["lambda"] = 0.3
        if PENALTIES[penalty].needs_target_l0:
            choices["target_l0"] = 4.0
        try:
            cell = Cell.model_validate(choices)
        except ValidationError:
            continue
        name = f"{activation}-{penalty}-{prefixes}-{decoder}{'-auxk' if auxk else ''}"
        name += "-trained" if auxiliary == "trained" else ""
        found[name] = cell
    return found


CELLS = combinations()
TRANSCODERS = {
    f"{name}-to-another{'-skip' if skip else ''}": cell.model_copy(
        update={"target_hook": "another", "skip": skip}
    )
    for number, (name, cell) in enumerate(CELLS.items())
    for skip in ((False, True) if number % 3 else (True,))
}
D_OUT = 5
UNUSED = np.random.default_rng(0)


def weights_of(cell: Cell, dtype: torch.dtype, seed: int = 0) -> Weights:
    """Weights in the midst of training: biases of both signs, free norms of many sizes."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((50, D + (D_OUT if cell.target_hook else 0))))
    weights = initial_weights(cell, D, x, rng, epsilon=0.4)
    moved = {n: t.double() + 0.2 * torch.from_numpy(rng.standard_normal(t.shape))
             for n, t in weights.named().items()}  # fmt: skip
    if cell.decoder == "unit_norm":
        moved["W_dec"] /= moved["W_dec"].norm(dim=1, keepdim=True)
    if "threshold" in moved:
        moved["threshold"].clamp_min_(0.0)
    return Weights(**{n: t.to(dtype).requires_grad_(True) for n, t in moved.items()})


def gradients_of(weights: Weights, taken: Taken) -> dict[str, torch.Tensor]:
    if taken.gradients is None:
        taken.loss.backward()
        return {n: torch.zeros_like(t) if t.grad is None else t.grad
                for n, t in weights.named().items()}  # fmt: skip
    middle = weights.d_sae // 3
    halves = [taken.gradients.rows(0, middle), taken.gradients.rows(middle, weights.d_sae)]
    encoder, decoder = (np.concatenate(parts) for parts in zip(*halves, strict=True))
    found = {**taken.gradients.small, "W_enc": encoder.T, "W_dec": decoder}
    return {name: torch.from_numpy(gradient) for name, gradient in found.items()}


def compare(cell: Cell, weights: Weights, x: torch.Tensor, lengths: list[int]) -> None:
    dead = torch.arange(weights.d_sae) % 3 == 0 if cell.revival == "auxk" else None
    argument = {"lengths": lengths, "lambda_": 0.3, "dead_k": dead}
    expected = Reference(cell, weights, 0.4).take(x, **argument)
    found = ByHand(cell, weights, epsilon=0.4).take(x, **argument)
    bound = LARGEST_ERROR[x.dtype]
    assert list(found.terms) == list(expected.terms)
    for name, term in expected.terms.items():
        assert found.terms[name] == pytest.approx(term.item(), rel=10 * bound, abs=bound)
    assert found.loss == pytest.approx(expected.loss.item(), rel=10 * bound)
    assert found.error() == pytest.approx(expected.error().item(), rel=10 * bound)
    theirs, ours = gradients_of(weights, expected), gradients_of(weights, found)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        error = (ours[name] - gradient).abs().max()
        assert error <= bound * gradient.abs().max().clamp_min(1e-3), name
    assert float(found.code.l0) == pytest.approx(float(expected.code.l0))
    norm = weights.W_dec.detach().norm(dim=1)
    assert torch.equal(found.code.fired_k(), expected.code.fired_k())
    torch.testing.assert_close(found.code.square_k(), expected.code.square_k())
    torch.testing.assert_close(found.code.smallest(norm), expected.code.smallest(norm))


def lengths_of(cell: Cell) -> list[int]:
    """Of the prefixes: uneven where they are fixed, as many as their weights are."""
    if cell.prefixes != "fixed":
        return prefix_lengths(cell, 24, UNUSED)
    return [6, 12, 18, 24] if cell.prefix_weights else [1, 5, 6, 24]


@pytest.mark.parametrize("name", [name for name in CELLS if "norm" in name])
@pytest.mark.parametrize("widths", [(2, 4), (1, 2, 3)])
def test_norms_of_several_hooks_have_autograds_gradients(
    name: str, widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crosscoder's penalty weighs each hook's part of a row by its own norm."""
    cell = CELLS[name]
    lengths = lengths_of(cell)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((N, D)))
    for below in (0.0, 1.0):
        monkeypatch.setattr(layouts, "SPARSE_BELOW", below)
        monkeypatch.setattr(layouts, "DENSE_TO", 0)
        weights = weights_of(cell, torch.float64)
        weights.widths = widths
        compare(cell, weights, x, lengths)


@pytest.mark.parametrize("name", CELLS | TRANSCODERS)
def test_every_combination_has_autograds_gradients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either layout, fp32 and fp64, the encoder with and without b_dec, both reductions."""
    cell = (CELLS | TRANSCODERS)[name]
    lengths = lengths_of(cell)
    width = D + (D_OUT if cell.target_hook else 0)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((N, width)))
    for number, (below, dtype) in enumerate(
        itertools.product((0.0, 1.0), (torch.float64, torch.float32))
    ):
        monkeypatch.setattr(layouts, "SPARSE_BELOW", below)
        monkeypatch.setattr(layouts, "DENSE_TO", 0)
        other = {
            "apply_b_dec_to_input": number % 3 > 0,
            "reconstruction": ("sum", "mean")[number % 2],
        }
        varied = cell.model_copy(update=other)
        compare(varied, weights_of(varied, dtype), x.to(dtype), lengths)
