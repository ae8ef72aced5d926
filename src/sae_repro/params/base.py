"""The base class of params.yaml's sections, and types of their values."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section that refuses unknown keys, NaN and infinity, and can't be changed once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )


Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
S = TypeVar("S", bound=Section)
