"""The base class of params.yaml's sections, and types of their values."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from sae_repro.errors import UNPRINTABLE


class Section(BaseModel):
    """A section that refuses unknown keys, NaN and infinity, and can't be changed once read.

    Nothing is converted: `true`, `1.0` and `"1"` are no whole numbers. Two forms that YAML has no
    other spelling for are taken: a whole number where any number may stand, and a list for `Many`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, strict=True
    )


T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple that YAML's list may fill; what is in the list stays strict."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
"""Tokens, steps, documents: beyond what any machine holds there are overflows only."""
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What NumPy, PyTorch and tables' 64-bit columns all take."""
Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=rf"^[^{UNPRINTABLE}]*$")]
"""A name of the user's, on one line."""
NAME_BYTES = 255
"""Of a file's or folder's name: more no common file system takes."""


def _short_names(path: str) -> str:
    longest = max(len(part.encode()) for part in path.split("/"))
    if longest > NAME_BYTES:
        raise ValueError(f"a name of {longest} bytes in it; file systems take {NAME_BYTES}")
    return path


ONE, SEVERAL = "one name", "a list of names"
"""Which form of `Names` a value has: faults are told of that one; in no message."""


def _form(value: object) -> str:
    return SEVERAL if isinstance(value, list | tuple) else ONE


Names = Annotated[
    Annotated[Text, Tag(ONE)] | Annotated[Many[Text], Field(min_length=1), Tag(SEVERAL)],
    Discriminator(_form),
]
"""A name of the user's, or a list of them."""
Place = Annotated[Text, AfterValidator(_short_names)]
"""A path of the user's, on one line."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:(0|[1-9][0-9]{0,2}))?)$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
S = TypeVar("S", bound=Section)
