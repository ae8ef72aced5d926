"""The kernels of a study: they decide the bits of its numbers."""

from typing import Literal

from pydantic import Field

from sae_repro.params.base import Section


class Compute(Section):
    """Kernels of numpy and torch on the CPU."""

    bits: Literal["portable", "native"] = Field(
        "portable",
        description="portable: the same kernels on every x86-64 processor with AVX2 and FMA; "
        "native: the kernels that the libraries choose for this processor",
    )
