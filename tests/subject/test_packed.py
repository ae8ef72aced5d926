"""Packed rows: the loss and the gradients that transformers gives for padded ones."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.subject import packed
from sae_repro.subject.gpt2 import _differentiate, _parts
from sae_repro.subject.packed import Packed, states

ROWS, CONTEXT, WORDS = 21, 13, 19


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    config = GPT2Config(vocab_size=WORDS, n_positions=CONTEXT, n_embd=12, n_layer=2, n_head=3,
                        activation_function="gelu", resid_pdrop=0.0, embd_pdrop=0.0,
                        attn_pdrop=0.0, initializer_range=0.3)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).double()


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [B, L], and lengths from the shortest possible to whole rows."""
    rng = np.random.default_rng(0)
    length = rng.permutation(np.linspace(2, CONTEXT, ROWS).astype(np.int64))
    return torch.from_numpy(rng.integers(WORDS, size=(ROWS, CONTEXT))), torch.from_numpy(length)


@pytest.fixture(scope="module")
def padded(
    model: GPT2LMHeadModel, batch: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Transformers' loss and gradients, padding left out by its label."""
    tokens, length = batch
    targets = tokens.masked_fill(torch.arange(CONTEXT) >= length[:, None], -100)[:, 1:]
    loss = cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), targets.flatten())
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("longest", [packed.LONGEST, 0])
def test_loss_and_gradients_are_those_of_padded_rows(
    model: GPT2LMHeadModel,
    batch: tuple[torch.Tensor, torch.Tensor],
    padded: tuple[torch.Tensor, tuple[torch.Tensor, ...]],
    threads: int,
    longest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With several groups and pieces, by either attention, in any number of parts."""
    monkeypatch.setattr(packed, "LONGEST", longest)
    monkeypatch.setattr(packed, "GROUP", 4)
    monkeypatch.setattr("sae_repro.subject.gpt2.PIECE", 50)
    with ThreadPoolExecutor(threads) as pool:
        loss = _differentiate(model, _parts(*batch, threads), pool)
    expected, gradients = padded
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-11, atol=1e-14)


def test_a_row_depends_on_no_other(
    model: GPT2LMHeadModel, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    tokens, length = batch
    with torch.no_grad():
        together = states(model, Packed.of(tokens, length.numpy()))
        alone = [states(model, Packed.of(tokens[[i]], length[[i]].numpy())) for i in range(ROWS)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-13)
