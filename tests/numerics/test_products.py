"""Torch's products and square roots by numpy: torch's own results, rules and gradients."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sae_repro.numerics.products import multiply

SIZES = st.integers(0, 9)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])


def laid_out(shape: tuple[int, ...], layout: str, dtype: torch.dtype, seed: int) -> Tensor:
    """Numbers of this shape: contiguous, transposed, or every second one of a larger tensor."""
    generator = torch.Generator().manual_seed(seed)
    *batch, rows, columns = shape
    if layout == "transposed":
        x = torch.randn(*batch, columns, rows, generator=generator).mT
    elif layout == "strided":
        x = torch.randn(*batch, rows, 2 * columns, generator=generator)[..., ::2]
    else:
        x = torch.randn(shape, generator=generator)
    return (4 * x).to(dtype) if dtype == torch.int64 else x.to(dtype)


def exact(x: Tensor) -> np.ndarray[Any, Any]:
    return x.double().numpy()


def close(result: Tensor, expected: np.ndarray[Any, Any], dtype: torch.dtype) -> None:
    assert result.dtype == dtype
    assert tuple(result.shape) == expected.shape
    rounding = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-5}.get(dtype, 1e-12)
    np.testing.assert_allclose(exact(result), expected, rtol=rounding, atol=8 * rounding)


@given(
    sizes=st.tuples(SIZES, SIZES, SIZES, SIZES),
    layouts=st.tuples(*[st.sampled_from(["contiguous", "transposed", "strided"])] * 2),
    dtype=DTYPES,
    bias=st.sampled_from(["row", "matrix", "scalar"]),
    beta=st.sampled_from([0, 1, 2]),
    alpha=st.sampled_from([1, 3]),
)
@settings(max_examples=150, deadline=None)
def test_products_are_those_of_exact_arithmetic(
    sizes: tuple[int, ...], layouts: tuple[str, str], dtype: torch.dtype, bias: str, beta: int,
    alpha: int,
) -> None:  # fmt: skip
    batch, n, k, m = sizes
    a, b = laid_out((batch, n, k), layouts[0], dtype, 1), laid_out((batch, k, m), layouts[1],
                                                                  dtype, 2)  # fmt: skip
    close(torch.bmm(a, b), exact(a) @ exact(b), dtype)
    c = laid_out((n, m) if bias == "matrix" else (1, m), "contiguous", dtype, 3)
    c = {"row": c[0] if bias == "row" else c, "matrix": c}.get(bias, torch.tensor(2, dtype=dtype))
    shift = beta * exact(c)
    close(
        torch.baddbmm(c, a, b, beta=beta, alpha=alpha), shift + alpha * exact(a) @ exact(b), dtype
    )
    if batch:
        x, y = a[0], b[0]
        close(x @ y, exact(x) @ exact(y), dtype)
        close(
            torch.addmm(c, x, y, beta=beta, alpha=alpha),
            shift + alpha * exact(x) @ exact(y), dtype,
        )  # fmt: skip


def test_a_result_goes_where_it_was_asked_for() -> None:
    a, b = torch.randn(4, 3), torch.randn(3, 5)
    whole = torch.zeros(4, 10)
    view = whole[:, ::2]
    torch.mm(a, b, out=view)
    assert torch.equal(view, a @ b) and not whole[:, 1::2].any()
    for product in (torch.mm, torch.bmm):
        x, y = (a, b) if product is torch.mm else (a[None], b[None])
        out = torch.empty(0)
        assert product(x, y, out=out) is out and torch.equal(out, product(x, y))
    bias = torch.randn(5)
    out = torch.empty(4, 5)
    assert torch.addmm(bias, a, b, out=out) is out and torch.equal(out, torch.addmm(bias, a, b))
    into = out.clone()
    assert into.addmm_(a, b, beta=0) is into and torch.equal(into, a @ b)


def test_a_bias_that_does_not_count_may_be_nan() -> None:
    nan = torch.full((2,), torch.nan)
    assert torch.addmm(nan, torch.ones(2, 3), torch.ones(3, 2), beta=0).eq(3).all()


def test_models_and_gradients_go_through_the_replaced_kernels() -> None:
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    w, b = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, w, b: (torch.nn.functional.linear(x, w, b) @ w).square().add(1).sqrt(),
        (x, w.requires_grad_(), b.requires_grad_()),
    )
    with torch.inference_mode():
        x_nd, w_dk = torch.randn(7, 3), torch.randn(3, 4)
        assert np.array_equal((x_nd @ w_dk).numpy(), x_nd.numpy() @ w_dk.numpy())


@given(
    x=st.lists(st.floats(0, width=32), max_size=9).map(torch.tensor),
    exponent=st.sampled_from([0.5, 2, 3, -1, 1, 1.7, 0, -0.5]),
)
@settings(max_examples=100, deadline=None)
def test_square_roots_are_exact_and_powers_are_right(x: Tensor, exponent: float) -> None:
    x = x.float()
    assert np.array_equal(x.sqrt().numpy(), np.sqrt(x.numpy()))
    assert np.array_equal((x**0.5).numpy(), np.sqrt(x.numpy()))
    assert np.array_equal(x.clone().sqrt_().numpy(), np.sqrt(x.numpy()))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose((x**exponent).numpy(), x.numpy() ** np.float32(exponent), 2e-6)


def test_roots_of_other_numbers() -> None:
    assert torch.tensor([4, 9]).sqrt().tolist() == [2.0, 3.0]
    assert torch.tensor(4.0).sqrt().item() == torch.tensor(4.0).sqrt_().item() == 2.0
    assert torch.tensor(16.0).pow(0.5).item() == 4.0
    assert torch.tensor([[4.0, 9.0], [16.0, 25.0]]).T.sqrt().tolist() == [[2, 4], [3, 5]]
    assert torch.tensor([2, 3]).pow(0.5).dtype == torch.float32
    assert torch.tensor([2, 3]).pow(2).tolist() == [4, 9]
    assert torch.tensor([-1.0]).sqrt().isnan().all()
    assert torch.tensor([4.0], dtype=torch.bfloat16).sqrt().tolist() == [2.0]
    out = torch.empty(0)
    assert torch.sqrt(torch.tensor([4.0]), out=out) is out and out.tolist() == [2.0]


def test_kernels_are_chosen_before_libraries_are_loaded() -> None:
    """A library that is there already computes with the kernels of its own choice."""
    code = "from sae_repro.numerics.kernels import choose\n{}\nchoose('{}')\nprint('chosen')"
    for first, bits, fails in (
        ("import numpy", "portable", True),
        ("choose('native'); import numpy", "portable", True),
        ("choose('portable'); import numpy", "portable", False),
        ("", "native", False),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(first, bits)], capture_output=True, text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        assert ("imported before the kernels" in done.stderr) == fails, done.stderr
        assert ("chosen" in done.stdout) != fails


def test_a_changed_environment_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_repro.numerics.determinism import prepare

    monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
    with pytest.raises(RuntimeError, match="OPENBLAS_CORETYPE changed"):
        prepare(device="cpu", threads=1)


@pytest.mark.parametrize("layouts", [("contiguous", "transposed"), ("transposed", "strided")])
@pytest.mark.parametrize("sizes", [(2, 2100, 96, 130), (3, 64, 70, 3300), (40, 96, 64, 96)])
def test_large_products_are_the_same_by_any_number_of_threads(
    sizes: tuple[int, ...], layouts: tuple[str, str]
) -> None:
    batch, n, k, m = sizes
    a = laid_out((batch, n, k), layouts[0], torch.float32, 1)
    b = laid_out((batch, k, m), layouts[1], torch.float32, 2)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((torch.bmm(a, b), a[0] @ b[0]))
    finally:
        torch.set_num_threads(before)
    for batched, single in results:
        close(batched, exact(a) @ exact(b), torch.float32)
        close(single, exact(a[0]) @ exact(b[0]), torch.float32)
        assert torch.equal(batched, results[0][0]) and torch.equal(single, results[0][1])


@pytest.mark.parametrize("layouts", [("contiguous", "transposed"), ("transposed", "contiguous")])
@pytest.mark.parametrize(
    "sizes", [(0, 3, 2), (5, 1, 7), (200, 20, 30), (2100, 96, 130), (64, 70, 4100)]
)
def test_products_past_torchs_dispatcher_are_those_by_it(
    sizes: tuple[int, int, int], layouts: tuple[str, str]
) -> None:
    """To the bit, small ones and those that are cut into blocks."""
    n, k, m = sizes
    a, b = (laid_out(shape, layout, torch.float32, 1)
            for shape, layout in zip(((n, k), (k, m)), layouts, strict=True))  # fmt: skip
    out = np.empty((n, m), np.float32)
    multiply(a.numpy(), b.numpy(), out)
    assert torch.equal(torch.from_numpy(out), a @ b)
