"""Torch's matrix products and square roots on the CPU, by numpy, which rounds alike everywhere.

Torch hands both to MKL, whose products depend on the processor's maker even where it is told not to
(its compatible mode is a third as fast), and whose square roots are not exact. OpenBLAS, with the
kernels that `numerics.kernels` fixes, is as fast as MKL on AVX2. The CPU kernels are replaced below
autograd, so that every model, loss and gradient of this process goes through them.

OpenBLAS itself stays at one thread, because it rounds by how it shares its work out. Large products
are cut into blocks here, by their shape alone, and the blocks are computed by as many threads as
torch has: their number changes no bit.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK, LONG_BLOCK = 1024, 2048  # rows or columns: for each block the other operand is packed anew
SMALL = 2**20  # numbers of that operand for which the shorter block costs 2 % of the time or less
WORTH_A_THREAD = 2**23  # multiplications; with fewer, handing a block over costs what it saves


@cache
def install() -> torch.library.Library:
    """Replace the kernels in this process, once; the result keeps them there."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
        for name, kernel in _KERNELS.items():
            library.impl(name, kernel, "CPU")
    return library


def multiply(a: "NDArray[Any]", b: "NDArray[Any]", out: "NDArray[Any]") -> None:
    """a @ b of matrices into `out`, to the bit as `torch.mm` computes it.

    Past torch's dispatcher where its products are replaced: with small matrices the way through it
    takes several times as long as the product. Numpy warns of what overflows, unless told not to.
    """
    if not install.cache_info().currsize:
        torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))
    elif max(out.shape) < 2 * BLOCK:
        np.matmul(a, b, out=out)  # one block, as `_blocks` would say
    else:
        _multiply(a, b, out)


def _mm(a: Tensor, b: Tensor) -> Tensor:
    return _product(a, b, a.new_empty(a.shape[0], b.shape[1]))


def _mm_out(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    return _product(a, b, _resized(out, (a.shape[0], b.shape[1])))


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    return _product(a, b, a.new_empty(a.shape[0], a.shape[1], b.shape[2]))


def _bmm_out(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    return _product(a, b, _resized(out, (a.shape[0], a.shape[1], b.shape[2])))


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _added(_mm(a, b), bias, beta, alpha)


def _addmm_out(
    bias: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor
) -> Tensor:
    result = _addmm(bias, a, b, beta=beta, alpha=alpha)
    return _resized(out, tuple(result.shape)).copy_(result)


def _addmm_(bias: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return bias.copy_(_addmm(bias, a, b, beta=beta, alpha=alpha))


def _baddbmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _added(_bmm(a, b), bias, beta, alpha)


def _added(product: Tensor, bias: Tensor, beta: Any, alpha: Any) -> Tensor:
    """alpha · product + beta · bias, in place; a bias with beta = 0 counts not even where NaN."""
    if alpha != 1:
        product.mul_(alpha)
    return product if beta == 0 else product.add_(bias, alpha=beta)


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """a @ b into `out`, of the operands' dtype; those that BLAS lacks are computed in fp32.

    What overflows is infinite or NaN, as in torch, without numpy's warning.
    """
    if out.dtype in (torch.float32, torch.float64):
        _multiply(_array(a), _array(b), out.detach().numpy())
        return out
    if out.dtype in (torch.float16, torch.bfloat16):
        wide = torch.empty(out.shape, dtype=torch.float32)
        _multiply(_array(a.float()), _array(b.float()), wide.numpy())
        return out.copy_(wide)
    return out.copy_(torch.from_numpy(np.matmul(_array(a), _array(b))))


def _multiply(a: "NDArray[Any]", b: "NDArray[Any]", out: "NDArray[Any]") -> None:
    """a @ b into `out`, block by block; by several threads where torch has several."""
    blocks = [*_blocks(a, b, out)]
    threads = min(torch.get_num_threads(), len(blocks))
    if threads > 1 and out.size * a.shape[-1] >= WORTH_A_THREAD:
        pool = _pool(os.getpid(), threads - 1)
        others = [pool.submit(_compute, blocks[n::threads]) for n in range(1, threads)]
        _compute(blocks[::threads])
        for other in others:
            other.result()
    else:
        _compute(blocks)


_Block = tuple["NDArray[Any]", "NDArray[Any]", "NDArray[Any]"]


def _blocks(a: "NDArray[Any]", b: "NDArray[Any]", out: "NDArray[Any]") -> Iterator[_Block]:
    """The parts of a product, each (rows of a, columns of b, its place in `out`).

    By shape alone: a block rounds as its own shape does. The matrices of a batch are products by
    themselves, however many are computed at once.
    """
    rows, columns = out.shape[-2:]
    if out.ndim > 2:
        size = max(1, -(-WORTH_A_THREAD // max(1, rows * columns * a.shape[-1])))
        for start in range(0, len(out), size):
            part = slice(start, start + size)
            yield a[part], b[part], out[part]
        return
    longer = max(rows, columns)
    block = BLOCK if a.shape[-1] * min(rows, columns) <= SMALL else LONG_BLOCK
    size = max(1, -(-longer // max(1, longer // block)))
    for start in range(0, longer, size):
        part = slice(start, start + size)
        if columns >= rows:
            yield a, b[:, part], out[:, part]
        else:
            yield a[part], b, out[part]


def _compute(blocks: list[_Block]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # of this thread
        for a, b, out in blocks:
            np.matmul(a, b, out=out)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"products-{process}")


def _sqrt(x: Tensor) -> Tensor:
    dtype = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
    return _rooted(x, torch.empty_like(x, dtype=dtype))


def _sqrt_out(x: Tensor, *, out: Tensor) -> Tensor:
    return _rooted(x, _resized(out, tuple(x.shape)))


def _sqrt_(x: Tensor) -> Tensor:
    return _rooted(x, x)


def _rooted(x: Tensor, out: Tensor) -> Tensor:
    """√x into `out`; NaN below 0, as in torch, without numpy's warning."""
    wide = x.double() if x.dtype == torch.float64 else x.float()
    root = torch.empty_like(wide)
    with np.errstate(invalid="ignore"):
        np.sqrt(_array(wide), out=_array(root))
    return out.copy_(root)


def _pow(x: Tensor, exponent: Any) -> Tensor:
    """Torch takes its own square root where the exponent is one half."""
    x = x.to(torch.result_type(x, exponent))
    if exponent in _POWERS:
        return _POWERS[exponent](x)
    # an exponent per entry takes another kernel than one for all, and that one is portable
    return torch.pow(x, torch.full_like(x, exponent))


def _pow_out(x: Tensor, exponent: Any, *, out: Tensor) -> Tensor:
    return _resized(out, tuple(x.shape)).copy_(_pow(x, exponent))


def _pow_(x: Tensor, exponent: Any) -> Tensor:
    return x.copy_(_pow(x, exponent))


def _array(x: Tensor) -> "NDArray[Any]":
    array: NDArray[Any] = x.detach().resolve_conj().resolve_neg().numpy()
    return array


def _resized(out: Tensor, shape: tuple[int, ...]) -> Tensor:
    return out if tuple(out.shape) == shape else out.resize_(shape)


_POWERS: dict[Any, Callable[[Tensor], Tensor]] = {
    0.5: torch.sqrt,
    1: torch.clone,
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    -1: torch.reciprocal,
}

_KERNELS = {
    "mm": _mm,
    "mm.out": _mm_out,
    "bmm": _bmm,
    "bmm.out": _bmm_out,
    "addmm": _addmm,
    "addmm.out": _addmm_out,
    "addmm_": _addmm_,
    "baddbmm": _baddbmm,
    "sqrt": _sqrt,
    "sqrt.out": _sqrt_out,
    "sqrt_": _sqrt_,
    "pow.Tensor_Scalar": _pow,
    "pow.Tensor_Scalar_out": _pow_out,
    "pow_.Scalar": _pow_,
}
"""By the name of the operator; complex numbers keep torch's square root: nothing here uses any."""
