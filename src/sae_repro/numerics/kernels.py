"""Kernels that numpy and torch compute with: portable ones round alike on every machine.

A library chooses its kernels by the processor when it is loaded, and other kernels round otherwise:
`choose` fixes the choice, for this process and the workers that it starts, before numpy or torch is
imported. What no setting reaches, torch's products and square roots, `numerics.products` replaces.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Bits = Literal["portable", "native"]

CHOSEN = "SAE_REPRO_BITS"
"""Tells the workers of a process, and `prepare`, what was chosen."""

PORTABLE: Mapping[str, str] = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",  # AVX2 still differs between AMD and Intel
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",  # another number cuts the sums otherwise
    "OMP_WAIT_POLICY": "PASSIVE",  # torch's idle threads leave their cores to those of products
    "ARROW_USER_SIMD_LEVEL": "AVX2",
    # numpy ignores those names that this processor, or its version, does not have
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR AVX512F AVX512CD AVX512_SKX "
    "AVX512_CLX AVX512_CNL",
}
"""Environment of the libraries: kernels for AVX2 and FMA, whatever else the processor has."""


def choose(bits: Bits) -> None:
    """Fix the kernels of this process and its children, before numpy or torch is imported.

    Where the processor has no AVX2 or FMA, portable kernels can't be had: a warning says that the
    bits are those of this machine. RuntimeError where a library was loaded with other kernels.
    """
    if bits == "portable" and not _has_avx2():
        print(
            f"warning: compute.bits = portable: this processor ({platform.machine()}) has no AVX2 "
            "and FMA; results are those of this kind of machine, to rounding",
            file=sys.stderr,
        )
        bits = "native"
    if in_use() == bits:
        return
    loaded = [name for name in ("numpy", "torch") if name in sys.modules]
    if loaded:
        raise RuntimeError(f"{', '.join(loaded)} imported before the kernels were chosen")
    os.environ[CHOSEN] = bits
    if bits == "portable":
        os.environ |= PORTABLE


def check() -> None:
    """RuntimeError where the environment is no longer that of the kernels in use."""
    if in_use() == "portable":
        changed = [name for name, value in PORTABLE.items() if os.environ.get(name) != value]
        if changed:
            raise RuntimeError(f"{', '.join(changed)} changed since the kernels were chosen")


def in_use() -> str | None:
    """`portable` or `native`, as chosen in this process or its parent; None before that."""
    return os.environ.get(CHOSEN)


def _has_avx2() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:  # no Linux: every such machine that runs its system has them
        return True
    return {"avx2", "fma"} <= set(flags)
