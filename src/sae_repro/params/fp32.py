"""Numbers that training holds in fp32."""

from typing import Annotated

from pydantic import AfterValidator, Field

SMALLEST, LARGEST = 1.2e-38, 3.4e38  # of fp32: below it is 0 or loses digits, above it is infinite


def _in_fp32(value: float) -> float:
    if value and not SMALLEST <= abs(value) <= LARGEST:
        raise ValueError(
            f"{value:g} is no number in fp32, the precision of training; allowed are {SMALLEST:g} "
            f"… {LARGEST:g}"
        )
    return value


InFp32 = AfterValidator(_in_fp32)
Positive = Annotated[float, Field(gt=0), InFp32]
