"""A crosscoder's loss hook by hook, and what is saved of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_repro.autoencoders import (
    SAE,
    Weights,
    crosscoder_of,
    levelled,
    load,
    save,
    training_losses,
)
from sae_repro.autoencoders.crosscoding import of_hooks
from sae_repro.autoencoders.interchange import export
from sae_repro.errors import StudyError
from sae_repro.params import Cell

WIDTHS = (3, 5)
HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out")
D, K, N = sum(WIDTHS), 12, 9


def tensor(*shape: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def by_hook(seed: int) -> list[dict[str, torch.Tensor]]:
    """W_enc,h [D_h, K], W_dec,h [K, D_h] and b_dec,h [D_h] of each hook."""
    return [
        {
            "W_enc": tensor(d, K, seed=seed + 3 * n).requires_grad_(),
            "W_dec": tensor(K, d, seed=seed + 3 * n + 1).requires_grad_(),
            "b_dec": tensor(d, seed=seed + 3 * n + 2).requires_grad_(),
        }
        for n, d in enumerate(WIDTHS)
    ]


def joined(parts: list[dict[str, torch.Tensor]], b_enc: torch.Tensor) -> Weights:
    w_enc, w_dec, b_dec = (
        torch.cat([part[name] for part in parts], dim=dim).detach().requires_grad_()
        for name, dim in (("W_enc", 0), ("W_dec", 1), ("b_dec", 0))
    )
    weights = Weights(w_enc, b_enc.detach().requires_grad_(), w_dec, b_dec)
    weights.widths = WIDTHS
    return weights


@pytest.mark.parametrize("lengths", [[K], [3, K]])
@pytest.mark.parametrize(
    ("choices", "subtracts"),
    [
        ({"penalty": "l1_decoder_norm", "decoder": "free", "lambda": 0.3}, True),
        ({"penalty": "l1_decoder_norm", "decoder": "free", "lambda": 0.3}, False),
        ({"penalty": "l1", "lambda": 0.3}, True),
        ({"activation": "topk", "k": 4}, True),
    ],
    ids=["norms", "norms-b_enc-alone", "l1", "topk"],
)
def test_loss_and_gradients_are_those_of_lindsey_et_al(
    choices: dict[str, Any], subtracts: bool, lengths: list[int]
) -> None:
    """Σ_h ‖x_h − z·W_dec,h − b_h‖² + λ Σ_k z_k Σ_h ‖W_dec,h,k‖, with z = σ(Σ_h x_h·W_enc,h + b)."""
    cell = Cell.model_validate({
        "hooks": list(HOOKS), "expansion": K / D, "reconstruction": "sum",
        "apply_b_dec_to_input": subtracts, **({"prefixes": "fixed"} if len(lengths) > 1 else {}),
        **choices,
    })  # fmt: skip
    parts, b_enc = by_hook(1), tensor(K, seed=90).requires_grad_()
    x = [tensor(N, d, seed=100 + d) for d in WIDTHS]
    u = b_enc
    for part, x_h in zip(parts, x, strict=True):
        u = u + (x_h - part["b_dec"] if subtracts else x_h) @ part["W_enc"]
    z = torch.relu(u)
    if cell.k is not None:
        kept = u.detach().sort(dim=1).values[:, -cell.k][:, None]
        z = z * (u.detach() >= kept)
    loss = torch.zeros((), dtype=torch.float64)
    for length in lengths:
        for part, x_h in zip(parts, x, strict=True):
            x_hat = z[:, :length] @ part["W_dec"][:length] + part["b_dec"]
            loss = loss + (x_h - x_hat).square().sum() / N / len(lengths)
            if cell.penalty == "l1_decoder_norm":
                norm = part["W_dec"].square().sum(1).sqrt()[:length]
                loss = loss + 0.3 * (z[:, :length] * norm).sum() / N / len(lengths)
        if cell.penalty == "l1":
            loss = loss + 0.3 * z[:, :length].sum() / N / len(lengths)
    weights = joined(parts, b_enc)
    ours = training_losses(cell, weights, torch.cat(x, dim=1), lengths=lengths, lambda_=0.3)
    torch.testing.assert_close(ours.loss, loss, rtol=1e-12, atol=1e-12)
    loss.backward()
    ours.loss.backward()
    assert weights.W_enc.grad is not None and weights.W_dec.grad is not None
    assert weights.b_enc.grad is not None and weights.b_dec.grad is not None
    torch.testing.assert_close(weights.b_enc.grad, b_enc.grad)
    for n, part in enumerate(parts):
        of_enc = weights.W_enc.grad.split(WIDTHS, dim=0)[n]
        torch.testing.assert_close(of_enc, part["W_enc"].grad)
        for name, grad in (("W_dec", weights.W_dec.grad), ("b_dec", weights.b_dec.grad)):
            torch.testing.assert_close(grad.split(WIDTHS, dim=-1)[n], part[name].grad)


def crosscoder(scales: tuple[float, float] = (2.0, 0.5)) -> SAE:
    weights = joined(by_hook(1), tensor(K, seed=90))
    single = Weights(**{n: t.detach().float() for n, t in weights.named().items()})
    relative = torch.tensor(scales, dtype=torch.float64).repeat_interleave(torch.tensor(WIDTHS))
    return of_hooks(SAE("standard", single), HOOKS, WIDTHS, relative)


def test_a_saved_crosscoder_loads_again(tmp_path: Path) -> None:
    sae = crosscoder()
    save(sae, tmp_path)
    ours, again = crosscoder_of(sae), crosscoder_of(load(tmp_path))
    assert ours is not None and again is not None
    assert (again.hooks, again.widths, again.scales) == (ours.hooks, ours.widths, ours.scales)
    x = {hook: tensor(4, d, seed=d).float() for hook, d in zip(HOOKS, WIDTHS, strict=True)}
    z = again.encode(x)
    parts = by_hook(1)
    u = tensor(K, seed=90) + sum(
        (x[hook].double() - part["b_dec"]) @ part["W_enc"]
        for hook, part in zip(HOOKS, parts, strict=True)
    )
    torch.testing.assert_close(z.double(), torch.relu(u), rtol=1e-4, atol=1e-5)
    for hook, part in zip(HOOKS, parts, strict=True):
        expected = z.double() @ part["W_dec"] + part["b_dec"]
        torch.testing.assert_close(again.decode(z)[hook].double(), expected, rtol=1e-4, atol=1e-4)


def test_saelens_reads_one_as_an_sae_on_the_vectors_side_by_side(tmp_path: Path) -> None:
    saelens = pytest.importorskip("sae_lens")
    sae = crosscoder()
    save(sae, tmp_path)
    theirs = saelens.SAE.load_from_disk(str(tmp_path))
    x = tensor(4, D, seed=5).float()
    torch.testing.assert_close(theirs.encode(x), sae.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs(x), sae.decode(sae.encode(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", ["dictionary_learning", "sparsify"])
def test_other_formats_hold_no_crosscoder(format: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no crosscoder"):
        export(crosscoder(), tmp_path / "out", format)


def test_levels_change_units_and_no_code() -> None:
    sae = crosscoder()
    level_d = torch.tensor([2.0] * WIDTHS[0] + [0.5] * WIDTHS[1])
    level = levelled(sae, (2.0, 0.5))
    x = tensor(4, D, seed=5).float()
    z = sae.encode(x)
    torch.testing.assert_close(level.encode(x * level_d), z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(level.decode(z), sae.decode(z) * level_d, rtol=1e-4, atol=1e-5)
    before, after = crosscoder_of(sae), crosscoder_of(level)
    assert before is not None and after is not None
    for one, other in zip(before.shares().values(), after.shares().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    plain = replace(sae, metadata={})
    assert levelled(plain, (1.0,)) is plain
    assert crosscoder_of(plain) is None


def wrong(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {HOOKS[0]: x[HOOKS[1]], HOOKS[1]: x[HOOKS[0]]}


def missing(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {HOOKS[0]: x[HOOKS[0]]}


def another(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**x, "blocks.2.hook_mlp_out": x[HOOKS[0]]}


@pytest.mark.parametrize("broken", [wrong, missing, another])
def test_activations_of_other_hooks_are_refused(
    broken: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
) -> None:
    cross = crosscoder_of(crosscoder())
    assert cross is not None
    x = {hook: tensor(4, d, seed=d).float() for hook, d in zip(HOOKS, WIDTHS, strict=True)}
    with pytest.raises(StudyError, match="a crosscoder of"):
        cross.encode(broken(x))
