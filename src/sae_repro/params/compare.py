"""All cells as tables and figures."""

from typing import Annotated

from pydantic import Field

from sae_repro.params.base import Many, Place, Section, Sha256


class ClaimsFile(Section):
    """The study's claims, pinned by their content: a bound was fixed before it was reached."""

    path: Place = Field(description="YAML, relative to params.yaml: see docs/claims.md")
    sha256: Sha256 = Field(description="of the file (`sae-repro pin` fills it in)")


class Compare(Section):
    """All cells → versioned tables and figures."""

    matched_l0: Many[Annotated[float, Field(gt=0)]] = Field(
        (8.0, 16.0, 32.0), description="L0 at which architectures of equal width are compared"
    )
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = Field(
        1000, description="resamplings of the validation documents behind every interval"
    )
    claims: ClaimsFile | None = Field(
        None, description="claims to be decided by the study's numbers, for tables/claims.md"
    )
