"""Activations of two hooks on disk that known atoms write to: to both, or to one of them alone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sae_repro.contents import seal
from sae_repro.files import read_json, write_json

FIRST, SECOND = "blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"
BOTH = f"{FIRST} + {SECOND}"
D_FIRST, D_SECOND = 12, 16
LOUD = 20.0
"""By how much activations at `SECOND` are larger."""


class World(NamedTuple):
    """Unit directions [atoms, D_h] that each atom writes at each hook; zero rows: nothing."""

    first: np.ndarray
    second: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Of each atom: 0 at the first hook alone, 1 at the second alone, ½ at both."""
        norms = [np.linalg.norm(side, axis=1) for side in self]
        return np.asarray(norms[1] / (norms[0] + norms[1]))


def world(shared: int = 4, exclusive: int = 4) -> World:
    """`shared` atoms of both hooks, then `exclusive` of the first, as many of the second."""
    rng = np.random.default_rng(3)
    n = shared + 2 * exclusive
    sides = []
    for d, silent in ((D_FIRST, slice(n - exclusive, n)), (D_SECOND, slice(shared, n - exclusive))):
        rows = rng.standard_normal((n, d))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[silent] = 0
        sides.append(rows)
    return World(*sides)


def draw(of: World, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations [n, D_h] at both hooks of the same n tokens: sparse sums of atoms."""
    rng = np.random.default_rng(seed)
    shape = (n, len(of.first))
    z = (rng.random(shape) < 0.12) * rng.uniform(0.5, 1.5, shape)
    first, second = z @ of.first + 0.3, LOUD * (z @ of.second + 0.2)
    return first.astype(np.float32), second.astype(np.float32)


def joined(make_store: Callable[..., Path], of: World, train: int = 4096) -> Path:
    """The folder of a store of both hooks; `make_store` shuffles every hook's rows alike."""
    sizes = {"train": (train, 1), "validation": (1024, 3), "tuning": (512, 4)}
    drawn = {split: draw(of, *size) for split, size in sizes.items()}
    first, second = ({split: sides[at] for split, sides in drawn.items()} for at in (0, 1))
    folder = make_store(**first, d_in=D_FIRST, name="extract")
    other = make_store(**second, d_in=D_SECOND, name="other")
    shutil.copytree(other / FIRST, folder / SECOND)
    manifest, added = (read_json(f / "manifest.json") for f in (folder, other))
    moved = {
        split: [{**e, "file": e["file"].replace(FIRST, SECOND)} for e in entries]
        for split, entries in added["hooks"][FIRST]["shards"].items()
    }
    manifest["hooks"][SECOND] = {**added["hooks"][FIRST], "shards": moved}
    write_json(folder / "manifest.json", manifest)
    seal(folder)
    return folder
