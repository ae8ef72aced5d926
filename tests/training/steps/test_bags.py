"""Products and passes over whole matrices, against numpy."""

import numpy as np
import pytest

from sae_repro.training.steps import bags


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_passes_over_a_matrix_are_those_of_numpy(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((37, 19)).astype(dtype)
    bias = rng.standard_normal(19).astype(dtype)
    x[3, 5], x[4, 6] = np.nan, np.inf
    expected = np.maximum(x + bias, 0)
    found = x.copy()
    bags.plus(found, bias)
    assert bags.rectified(found) is found
    np.testing.assert_array_equal(found, expected)  # NaN stays NaN: a broken step shows
    finite = np.nan_to_num(found, posinf=1.0)
    np.testing.assert_allclose(bags.sum_rows(finite), finite.sum(0, dtype=np.float64), rtol=1e-5)


def test_a_product_is_the_same_to_rounding_whole_or_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, 7)), rng.standard_normal((7, 4200))

    class Installed:
        currsize = 1

    for installed in (False, True):
        if installed:
            monkeypatch.setattr(bags.install, "cache_info", Installed, raising=False)
        out = np.empty((40, 4200))
        bags.product(a, b, out)
        np.testing.assert_allclose(out, np.einsum("nd,dk->nk", a, b), atol=1e-13)
