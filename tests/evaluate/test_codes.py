"""Codes on disk: the same as encoding again, scaled as their decoder."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import SAE, Weights
from sae_repro.autoencoders.encoder import Encoder
from sae_repro.evaluate.codes import Code, CodeFile, code_of, reconstructed, scaled


def dense(code: Code, k: int) -> np.ndarray:
    z = np.zeros((len(code.index), k), dtype=code.value.dtype)
    z[code.row, code.latent] = code.value
    return z


def index_of(n: int, start: int = 0) -> np.ndarray:
    rows = np.arange(start, start + n)
    return np.stack([rows // 7, rows % 7, rows % 5], axis=1).astype(np.int32)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.integers(1, 30),
    st.floats(0, 1),
    st.integers(0, 99),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_file_gives_back_every_batch(
    tmp_path: Path, sizes: list[int], k: int, p: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    batches = [(rng.random((n, k)) * (rng.random((n, k)) < p)).astype(np.float32) for n in sizes]
    file = CodeFile(tmp_path)
    for z in batches:
        file.append(code_of(torch.from_numpy(z), index_of(len(z), 3)))
    file.close()
    for _ in range(2):
        read = list(file())
        assert len(read) == len(batches)
        for z, code in zip(batches, read, strict=True):
            assert np.array_equal(dense(code, k), z)
            assert np.array_equal(code.index, index_of(len(z), 3))
            order = np.lexsort((code.latent, code.row))
            assert np.array_equal(order, np.arange(len(order)))


def test_canonical_activations_do_not_depend_on_the_decoders_scale() -> None:
    rng = np.random.default_rng(0)
    w, x = (torch.from_numpy(rng.standard_normal((9, 16)).astype(np.float32)) for _ in range(2))
    scale = torch.linspace(0.5, 3, 9)
    zero = torch.zeros(9), torch.zeros(16)
    plain = SAE("standard", Weights(w.T, zero[0], w, zero[1]))
    other = SAE("standard", Weights(w.T / scale, zero[0], w * scale[:, None], zero[1]))

    def canonical(sae: SAE) -> np.ndarray:
        code = code_of(sae.encode(x), index_of(9))
        norm = sae.weights.W_dec.norm(dim=1).numpy()
        (a,) = scaled(lambda: [code], norm)()
        return dense(a, 9)

    assert np.allclose(canonical(plain), canonical(other), rtol=1e-5)
    assert not np.allclose(dense(code_of(other.encode(x), index_of(9)), 9), canonical(plain))


@given(st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_sparse_and_dense_decoding_give_one_reconstruction(k: int, p: float, seed: int) -> None:
    """On either side of the density at which the way changes; silent tokens get b_dec."""
    generator = torch.Generator().manual_seed(seed)
    w, b = torch.randn(k, 6, generator=generator), torch.randn(6, generator=generator)
    x = torch.randn(9, 6, generator=generator)
    bias = torch.full((k,), 8 * p - 8)
    sae = SAE("standard", Weights(w.T, bias, w, b))
    code, x_hat = reconstructed(Encoder(sae), x, index_of(9))
    assert np.array_equal(dense(code, k), sae.encode(x).numpy())
    assert torch.allclose(x_hat, sae.decode(sae.encode(x)), rtol=1e-5, atol=1e-4)


def test_nan_is_part_of_the_code() -> None:
    """A diverged SAE must not pass for one that is silent."""
    sae = SAE("standard", Weights(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4)))
    x = torch.tensor([[1.0, 0, 0, 0], [torch.nan, 0, 0, 0]])
    code, x_hat = reconstructed(Encoder(sae), x, index_of(2))
    assert set(code.row.tolist()) == {0, 1}
    assert x_hat.isnan().any(dim=1).tolist() == [False, True]
