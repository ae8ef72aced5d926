"""Nonzeros without the code that they are of: the same, to the bit, as found in it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import SAE, Weights
from sae_repro.autoencoders.encoder import Encoder, nonzeros

D, K = 6, 23


def sae_of(architecture: str, seed: int, *, apply: bool, ties: bool) -> SAE:
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, generator=rng)
        return values.round() if ties else values  # whole numbers: equal pre-activations, zeros

    weights = Weights(
        draw(D, K),
        draw(K),
        draw(K, D),
        draw(D),
        threshold=draw(K) if architecture == "jumprelu" else None,
        b_mag=draw(K) if architecture == "gated" else None,
        r_mag=draw(K) if architecture == "gated" else None,
    )
    k = 5 if architecture == "topk" else None
    return SAE(architecture, weights, apply_b_dec_to_input=apply, k=k)


@given(
    st.sampled_from(["standard", "topk", "jumprelu", "gated"]),
    st.integers(0, 999),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_nonzeros_are_those_of_the_code(
    architecture: str, seed: int, apply: bool, ties: bool, sizes: list[int]
) -> None:
    sae = sae_of(architecture, seed, apply=apply, ties=ties)
    encoder, rng = Encoder(sae), torch.Generator().manual_seed(seed)
    for n in sizes:  # batches of one encoder do not show in each other
        x = torch.randn(n, D, generator=rng)
        x = x.round() if ties else x
        flat, value = encoder(x)
        expected = sae.encode(x)
        assert np.array_equal(flat, nonzeros(expected)[0])
        assert np.array_equal(value, nonzeros(expected)[1])
        assert np.array_equal(value, expected.numpy().reshape(-1)[flat])


@pytest.mark.parametrize("architecture", ["standard", "topk", "gated"])
def test_nan_counts_as_firing(architecture: str) -> None:
    sae = sae_of(architecture, 0, apply=False, ties=False)
    x = torch.zeros(3, D)
    x[1, 0] = torch.nan
    flat, value = Encoder(sae)(x)
    assert set(flat[np.isnan(value)] // K) == {1}


def test_other_precisions_are_encoded_and_searched() -> None:
    single = sae_of("standard", 1, apply=True, ties=False)
    double = {name: tensor.double() for name, tensor in single.weights.named().items()}
    sae = SAE("standard", Weights(**double))
    x = torch.randn(4, D, dtype=torch.float64)
    flat, value = Encoder(sae)(x)
    assert np.array_equal(value, sae.encode(x).numpy().reshape(-1)[flat])
