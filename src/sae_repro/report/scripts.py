"""Data as classic scripts: a page opened from a disk may load these, and neither JSON nor modules.

Each calls `saeData(key, value)`. The bytes are the same in every run: sorted keys, ASCII, numbers
of 4 significant digits. No text of a corpus ends a script or a string in it: `<`, `>` and `&` are
escaped, as is all that is not ASCII (U+2028, and surrogates without their other half).
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from sae_repro.files import write_text

DIGITS = 4
_ESCAPES = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "<>&"})


def write_script(path: Path, key: str, value: Any) -> None:
    """Write `saeData(key, value)` to `path`."""
    write_text(path, f"saeData({encoded(key)},{encoded(value)});\n")


def encoded(value: Any) -> str:
    """`value` as a JavaScript expression, which is JSON as well; NaN and infinity are null."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES)


def rounded(x: float) -> float | int | None:
    """`x` to 4 significant digits; None where it is not finite. A whole result has no point."""
    if not math.isfinite(x):
        return None
    value = float(f"{x:.{DIGITS}g}")
    if not math.isfinite(value):  # beyond the largest number when rounded up
        return x
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return rounded(value) if isinstance(value, float) else value
