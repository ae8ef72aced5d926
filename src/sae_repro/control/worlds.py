"""Synthetic activations whose atoms are known: x = Σ_f a_f · atom_f (+ noise)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PARENTS, CHILDREN, LEAVES = 3, 3, 8
P_PARENT, P_CHILD, P_LEAF = 0.15, 0.2, 0.05
NORM_SD = 0.05
P_OF_TWO = 0.3
NOISE = 0.05


@dataclass(frozen=True)
class Atoms:
    """The atoms [F, D] of a world, their names, and each one's parent (−1: none)."""

    directions_fd: Floats
    names: tuple[str, ...]
    parent_f: npt.NDArray[np.int64]

    @property
    def parents(self) -> list[int]:
        """The atoms that have children."""
        return sorted({int(p) for p in self.parent_f if p >= 0})

    def children(self, parent: int) -> npt.NDArray[np.int64]:
        """The children of `parent`."""
        return np.flatnonzero(self.parent_f == parent)


@dataclass(frozen=True)
class Sample:
    """Activations x [N, D] and the true a [N, F] ≥ 0 that they are made of."""

    x_nd: Floats
    a_nf: Floats

    @cached_property
    def on_fn(self) -> npt.NDArray[np.bool_]:
        """Where each atom is on [F, N]."""
        return np.ascontiguousarray((self.a_nf > 0).T)

    @cached_property
    def power(self) -> float:
        """Σ ‖x − mean‖², fp64."""
        centred = self.x_nd - self.x_nd.mean(0, dtype=np.float64)
        return float(np.square(centred).sum())


def tree_atoms(d_in: int, rng: np.random.Generator) -> Atoms:
    """The toy tree: 3 parents with 3 children each, 8 leaves; 20 orthogonal atoms.

    Their norms are 1 + N(0, .05). Source: the toy model of the Matryoshka SAE note (Nabeshima
    2024); its root, which is always on, is not read out.
    """
    n = PARENTS * (1 + CHILDREN) + LEAVES
    q, _ = np.linalg.qr(rng.standard_normal((d_in, n)))
    names: list[str] = []
    parents: list[int] = []
    for p in range(PARENTS):
        names += [f"parent {p}", *(f"child {p}.{c}" for c in range(CHILDREN))]
        parents += [-1, *[len(parents)] * CHILDREN]
    names += [f"leaf {i}" for i in range(LEAVES)]
    parents += [-1] * LEAVES
    norms = 1 + NORM_SD * rng.standard_normal((n, 1))
    return Atoms((q.T * norms).astype(np.float32), tuple(names), np.array(parents))


def tree_sample(atoms: Atoms, n: int, rng: np.random.Generator) -> Sample:
    """A parent is on with p = .15; then one of its children (.2 each) or none (.4); leaves .05.

    E[L0] = 3·.15·(1 + 3·.2) + 8·.05 = 1.12.
    """
    on = np.zeros((n, len(atoms.names)), dtype=bool)
    for parent in atoms.parents:
        on[:, parent] = rng.random(n) < P_PARENT
        child_rank = (rng.random(n) / P_CHILD).astype(int)
        for number, child in enumerate(atoms.children(parent)):
            on[:, child] = on[:, parent] & (child_rank == number)
    leaves = slice(len(atoms.names) - LEAVES, None)
    on[:, leaves] = rng.random((n, LEAVES)) < P_LEAF
    a_nf = on.astype(np.float32)
    return Sample(a_nf @ atoms.directions_fd, a_nf)


def two_atoms(rng: np.random.Generator) -> Atoms:
    """Two directions in the plane, 60° apart, turned at random."""
    angle = rng.random() * 2 * np.pi + np.array([0.0, np.pi / 3])
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    return Atoms(directions, ("atom 0", "atom 1"), np.array([-1, -1]))


def two_atoms_sample(atoms: Atoms, n: int, rng: np.random.Generator) -> Sample:
    """Each on with p = .3, amplitude uniform in [½, 1½]; noise of sd .05 per dimension."""
    on = rng.random((n, 2)) < P_OF_TWO
    a_nf = (on * rng.uniform(0.5, 1.5, (n, 2))).astype(np.float32)
    noise = NOISE * rng.standard_normal((n, 2))
    return Sample((a_nf @ atoms.directions_fd + noise).astype(np.float32), a_nf)


def oracle_atoms(
    names: tuple[str, ...],
    parent_f: npt.NDArray[np.int64],
    d_in: int,
    rng: np.random.Generator,
) -> Atoms:
    """A random unit direction for each concept of a labelled text."""
    directions = rng.standard_normal((len(names), d_in))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Atoms(directions.astype(np.float32), names, parent_f)


def oracle_sample(atoms: Atoms, on_nf: npt.NDArray[np.bool_], rng: np.random.Generator) -> Sample:
    """The sum of the directions that are on, and noise of sd .05 per dimension."""
    a_nf = on_nf.astype(np.float32)
    shape = len(on_nf), atoms.directions_fd.shape[1]
    noise = NOISE * rng.standard_normal(shape, dtype=np.float32)
    return Sample(a_nf @ atoms.directions_fd + noise, a_nf)


def sparse_atoms(d_in: int, rng: np.random.Generator) -> Atoms:
    """Twice as many random unit directions as dimensions, none a parent of another."""
    directions = rng.standard_normal((2 * d_in, d_in))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    names = tuple(f"atom {i}" for i in range(2 * d_in))
    return Atoms(directions.astype(np.float32), names, np.full(2 * d_in, -1))


def sparse_sample(atoms: Atoms, n: int, rng: np.random.Generator) -> Sample:
    """Two atoms on per row, on average; amplitude uniform in [½, 1½]."""
    f = len(atoms.names)
    on = rng.random((n, f)) < 2 / f
    a_nf = (on * rng.uniform(0.5, 1.5, (n, f))).astype(np.float32)
    return Sample(a_nf @ atoms.directions_fd, a_nf)


def cosines(a_fd: npt.NDArray[Any], b_kd: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Signed cosines [F, K]; 0 for a row of zeros."""
    norms = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a_fd, b_kd)]
    a, b = (rows / np.where(n > 0, n, 1) for rows, n in zip((a_fd, b_kd), norms, strict=True))
    result: npt.NDArray[np.float64] = a.astype(np.float64) @ b.astype(np.float64).T
    return result
