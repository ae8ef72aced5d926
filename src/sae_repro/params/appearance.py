"""One colour and marker per architecture, the same in every figure, in MLflow and in DVC's plots.

Fixed for the architectures of the root study; any other name gets its own by rule, so that adding
one recolours no figure. The palette is safe for colour-blind readers:
tests/params/test_appearance.py simulates their sight.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How an architecture is drawn; its label is its name in tables (`params.architecture`)."""

    label: str
    colour: str
    """#RRGGBB."""
    marker: str
    """One of matplotlib's."""
    negative: bool = False
    """Whether it is a negative control: grey, with a broken line."""

    @property
    def line(self) -> str:
        """The line style."""
        return "--" if self.negative else "-"


FIXED = {
    look.label: look
    for look in (
        Look("vanilla", "#000000", "o"),
        Look("vanilla + resampling", "#CC6677", "s"),
        Look("topk", "#0072B2", "^"),
        Look("batchtopk", "#33BBEE", "v"),
        Look("matryoshka-fixed", "#CC3311", "D"),
        Look("matryoshka-random", "#D4B000", "P"),
        Look("jumprelu", "#332288", "X"),
        Look("gated", "#661100", "h"),
    )
}
CONTROL = "#999999"
CONTROL_MARKERS = {
    "neurons": "+", "PCA": "x", "untrained": "1", "on random weights": "2",
    "on embeddings alone": "_",
    "frozen decoder": "3", "frozen soft decoder": "4", "frozen encoder": "|",
}  # fmt: skip
"""By a part of a negative control's name."""
RESERVE_COLOURS = ("#117733", "#AA4499", "#EE7733")
RESERVE_MARKERS = ("<", ">", "p", "*", "d", "8")


def look(architecture: str) -> Look:
    """How `architecture` is drawn: fixed, or by its name alone.

    A variant of a fixed architecture ("matryoshka-random over topk", "topk without revival") has
    its colour and a reserve marker; a name of another kind has a reserve colour too.
    """
    if architecture in FIXED:
        return FIXED[architecture]
    for part, marker in CONTROL_MARKERS.items():
        if part in architecture:
            return Look(architecture, CONTROL, marker, negative=True)
    relatives = [name for name in FIXED if _names(architecture, name)]
    number = int.from_bytes(hashlib.sha256(architecture.encode()).digest()[:8], "big")
    colour = (
        FIXED[max(relatives, key=len)].colour
        if relatives
        else RESERVE_COLOURS[number // len(RESERVE_MARKERS) % len(RESERVE_COLOURS)]
    )
    return Look(architecture, colour, RESERVE_MARKERS[number % len(RESERVE_MARKERS)])


def looks(architectures: Iterable[str]) -> dict[str, Look]:
    """The look of each; two of one colour and marker get the next free marker, in name order."""
    names = list(dict.fromkeys(architectures))
    chosen: dict[str, Look] = {}
    taken: set[tuple[str, str]] = set()
    for name in sorted(names):
        first = look(name)
        # no two fixed ones meet; where all markers of a colour are taken, its own stays
        at = RESERVE_MARKERS.index(first.marker) if first.marker in RESERVE_MARKERS else 0
        following = (*RESERVE_MARKERS[at:], *RESERVE_MARKERS[:at])
        marker = first.marker
        if (first.colour, marker) in taken and not first.negative:
            free = (m for m in following if (first.colour, m) not in taken)
            marker = next(free, marker)
        taken.add((first.colour, marker))
        chosen[name] = Look(name, first.colour, marker, first.negative)
    return {name: chosen[name] for name in names}


def _names(architecture: str, fixed: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(fixed)}(?!\w)", architecture) is not None
