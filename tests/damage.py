"""Kinds of damage to a file, as disks, memory and people do it; each is the same every time."""

import random
from collections.abc import Callable
from pathlib import Path


def _flip(content: bytearray, rng: random.Random) -> bytearray:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def _digit(content: bytearray, rng: random.Random) -> bytearray:
    places = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    if places:
        place = rng.choice(places)
        content[place] = ord("0") + (content[place] - ord("0") + 1) % 10
    return content


KINDS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "flip": _flip,
    "truncate": lambda content, _: content[: len(content) // 2],
    "empty": lambda content, _: bytearray(),
    "zeros": lambda content, _: bytearray(len(content)),
    "digit": _digit,
}


def damage(path: Path, kind: str) -> bool:
    """Damage `path`; False, and nothing done, where it can't be damaged in this way."""
    if kind == "delete":
        path.unlink()
        return True
    before = path.read_bytes()
    if not before:
        return False
    after = KINDS[kind](bytearray(before), random.Random(f"{path.name} {kind}"))
    path.write_bytes(after)
    return bytes(after) != before


ALL = (*KINDS, "delete")
