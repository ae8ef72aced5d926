"""A step's code in its three forms, which must say the same of the same z."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sae_repro.training.running_threshold import RunningThreshold, moved
from sae_repro.training.steps.codes import DenseCode, HostCode, SparseCode, dense_code

values = st.one_of(st.just(0.0), st.floats(0, 1e6, width=32))
codes = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=values)
scalars = st.floats(width=32, allow_nan=False, allow_infinity=False)


def sparse(z: np.ndarray) -> SparseCode:
    flat = np.flatnonzero(z >= 0)  # entries that may fire: zeros among them
    latent, (tokens, d_sae) = flat % z.shape[1], z.shape
    return SparseCode(latent, z.reshape(-1)[flat], tokens, np.bincount(latent, minlength=d_sae))


@given(codes)
@settings(max_examples=100, deadline=None)
def test_the_forms_of_a_code_agree(z: np.ndarray) -> None:
    z_nk = torch.from_numpy(z)
    norm_k = torch.linspace(0.5, 2.0, z.shape[1])
    any_device = DenseCode(z_nk)  # what a GPU gets
    for other in (HostCode(z_nk), sparse(z)):
        assert torch.equal(any_device.fired_k(), other.fired_k())
        assert float(any_device.l0) == pytest.approx(float(other.l0), rel=1e-6)
        torch.testing.assert_close(any_device.square_k(), other.square_k())
        for norm in (None, norm_k):
            assert any_device.smallest(norm) == other.smallest(norm)


def test_each_device_has_its_form() -> None:
    assert type(dense_code(torch.ones(2, 3))) is HostCode
    assert type(dense_code(torch.ones(2, 3, device="meta"))) is DenseCode


@given(st.one_of(scalars, st.just(np.nan)), st.one_of(scalars, st.just(np.inf)))
@settings(max_examples=200, deadline=None)
def test_the_running_threshold_moves_alike_with_and_without_asking(
    mean: float, smallest: float
) -> None:
    threshold = RunningThreshold(torch.device("cpu"))
    a, b = threshold.mean.fill_(mean).clone(), torch.tensor(smallest)
    threshold.follow(b)
    assert threshold.mean.view(torch.int32) == moved(a, b).view(torch.int32)


def test_the_running_threshold_starts_at_the_first_value_and_skips_silent_steps() -> None:
    threshold = RunningThreshold(torch.device("cpu"))
    for smallest in (torch.inf, 2.0, torch.inf, 3.0):
        threshold.follow(torch.tensor(smallest))
    assert threshold.mean.item() == pytest.approx(0.99 * 2.0 + 0.01 * 3.0)
