"""All cells as tables and figures."""

from typing import Annotated

from pydantic import Field

from sae_repro.params.base import Many, Section


class Compare(Section):
    """All cells → versioned tables and figures."""

    matched_l0: Many[Annotated[float, Field(gt=0)]] = Field(
        (8.0, 16.0, 32.0), description="L0 at which architectures of equal width are compared"
    )
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = Field(
        1000, description="resamplings of the validation documents behind every interval"
    )
