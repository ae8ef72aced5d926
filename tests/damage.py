"""Kinds of damage to a file, as disks, memory and people do it; each is the same every time."""

import random
from collections.abc import Callable, Iterator
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


def mutants(content: bytes, number: int, seed: str) -> Iterator[bytes]:
    """`content` changed in many ways: bits, bytes and digits, cut, repeated, filled, replaced."""
    rng, size = random.Random(seed), len(content)
    for turn in range(number):
        changed = bytearray(content)
        start, end = sorted((rng.randrange(size), rng.randrange(size)))
        match turn % 8:
            case 0:
                changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
            case 1:
                del changed[start:]
            case 2:
                del changed[start : start + rng.randint(1, 40)]
            case 3:
                changed[start:start] = rng.randbytes(rng.randint(1, 40))
            case 4:
                changed[start:end] = bytes(end - start)
            case 5:
                changed[start:start] = changed[start:end]
            case 6:  # of formats, what says how the rest is read stands at either end
                near = rng.randrange(min(size, 200))
                changed[near if turn % 16 < 8 else -1 - near] = rng.randrange(256)
            case 7:
                changed = _digit(changed, rng)
        yield bytes(changed)
