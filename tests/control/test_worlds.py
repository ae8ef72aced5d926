"""The synthetic worlds are what their documentation says."""

from collections.abc import Callable

import numpy as np
import pytest

from sae_repro.control import worlds
from sae_repro.control.worlds import Atoms, Sample

N = 100_000
WIDTHS = pytest.mark.parametrize("d_in", [20, 30])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tree(d_in: int, n: int = N, seed: int = 0) -> tuple[Atoms, Sample]:
    atoms = worlds.tree_atoms(d_in, rng(seed))
    return atoms, worlds.tree_sample(atoms, n, rng(seed + 100))


@WIDTHS
def test_atoms_of_the_tree_are_orthogonal_and_about_unit(d_in: int) -> None:
    many = [worlds.tree_atoms(d_in, rng(seed)).directions_fd for seed in range(50)]
    for directions in many:
        assert directions.shape == (20, d_in)
        cosines = worlds.cosines(directions, directions)
        assert np.allclose(cosines, np.eye(20), atol=1e-5)
    norms = np.linalg.norm(many, axis=2)
    assert norms.mean() == pytest.approx(1, abs=0.01)
    assert norms.std() == pytest.approx(0.05, abs=0.005)


def test_the_tree_has_three_parents_of_three_and_eight_leaves() -> None:
    atoms = worlds.tree_atoms(20, rng())
    assert [atoms.names[p] for p in atoms.parents] == ["parent 0", "parent 1", "parent 2"]
    for number, parent in enumerate(atoms.parents):
        expected = [f"child {number}.{c}" for c in range(3)]
        assert [atoms.names[c] for c in atoms.children(parent)] == expected
    leaves = [name for name in atoms.names if name.startswith("leaf")]
    assert len(leaves) == 8
    assert len(atoms.names) == 20


@WIDTHS
def test_the_tree_fires_as_often_as_documented(d_in: int) -> None:
    atoms, sample = tree(d_in)
    density = (sample.a_nf > 0).mean(0)
    assert density.sum() == pytest.approx(1.12, abs=0.02)
    for parent in atoms.parents:
        assert density[parent] == pytest.approx(0.15, abs=0.006)
        assert density[atoms.children(parent)] == pytest.approx(0.15 * 0.2, abs=0.003)
    assert density[-8:] == pytest.approx(0.05, abs=0.004)


def test_a_child_is_on_only_with_its_parent_and_without_siblings() -> None:
    atoms, sample = tree(20)
    on = sample.a_nf > 0
    for parent in atoms.parents:
        children = on[:, atoms.children(parent)].sum(1)
        assert children.max() == 1
        assert not children[~on[:, parent]].any()
        assert (children[on[:, parent]] == 0).mean() == pytest.approx(0.4, abs=0.02)


@WIDTHS
def test_x_of_the_tree_is_the_sum_of_what_is_on(d_in: int) -> None:
    atoms, sample = tree(d_in, 500)
    assert set(np.unique(sample.a_nf)) == {0, 1}
    for x, a in zip(sample.x_nd, sample.a_nf, strict=True):
        assert np.allclose(x, atoms.directions_fd[a > 0].sum(0), atol=1e-5)


def test_two_atoms_are_60_degrees_apart_and_on_in_three_of_ten() -> None:
    firsts = []
    for seed in range(20):
        directions = worlds.two_atoms(rng(seed)).directions_fd
        assert np.linalg.norm(directions, axis=1) == pytest.approx(1, abs=1e-6)
        assert directions[0] @ directions[1] == pytest.approx(0.5, abs=1e-6)
        firsts.append(directions[0])
    assert np.linalg.norm(np.mean(firsts, axis=0)) < 0.5  # turned at random
    atoms = worlds.two_atoms(rng())
    sample = worlds.two_atoms_sample(atoms, N, rng(1))
    on = sample.a_nf > 0
    assert on.mean(0) == pytest.approx(0.3, abs=0.01)
    assert (on.all(1)).mean() == pytest.approx(0.09, abs=0.005)  # independent
    amplitudes = sample.a_nf[on]
    assert amplitudes.min() >= 0.5
    assert amplitudes.max() <= 1.5
    assert amplitudes.mean() == pytest.approx(1, abs=0.01)
    noise = sample.x_nd - sample.a_nf @ atoms.directions_fd
    assert noise.std(0) == pytest.approx(0.05, abs=0.001)


def test_two_of_the_sparse_atoms_are_on_per_row() -> None:
    atoms = worlds.sparse_atoms(32, rng())
    assert atoms.directions_fd.shape == (64, 32)
    assert np.linalg.norm(atoms.directions_fd, axis=1) == pytest.approx(1, abs=1e-6)
    assert not atoms.parents
    sample = worlds.sparse_sample(atoms, N, rng(1))
    on = sample.a_nf > 0
    assert on.sum(1).mean() == pytest.approx(2, abs=0.03)
    assert on.mean(0) == pytest.approx(2 / 64, abs=0.004)  # no atom is preferred
    assert sample.a_nf[on].min() >= 0.5
    assert sample.a_nf[on].max() <= 1.5


def test_oracle_activations_without_their_noise_are_sums_of_directions() -> None:
    atoms = worlds.oracle_atoms(("verb", "ran", "sat"), np.array([-1, 0, 0]), 64, rng())
    assert np.linalg.norm(atoms.directions_fd, axis=1) == pytest.approx(1, abs=1e-6)
    on = rng(1).random((4000, 3)) < 0.3
    sample = worlds.oracle_sample(atoms, on, rng(2))
    assert np.array_equal(sample.a_nf, on.astype(np.float32))
    clean = np.stack([atoms.directions_fd[row].sum(0) for row in on])
    noise = sample.x_nd - clean
    assert noise.std() == pytest.approx(0.05, rel=0.01)
    assert abs(noise.mean(0)).max() < 0.005


WORLDS: dict[str, tuple[Callable[..., Atoms], Callable[..., Sample]]] = {
    "tree": (lambda r: worlds.tree_atoms(20, r), worlds.tree_sample),
    "two_atoms": (worlds.two_atoms, worlds.two_atoms_sample),
    "sparse": (lambda r: worlds.sparse_atoms(32, r), worlds.sparse_sample),
    "oracle": (
        lambda r: worlds.oracle_atoms(("a", "b"), np.array([-1, 0]), 8, r),
        lambda atoms, n, r: worlds.oracle_sample(atoms, r.random((n, 2)) < 0.5, r),
    ),
}


@pytest.mark.parametrize("name", WORLDS)
def test_the_generator_alone_decides_the_world(name: str) -> None:
    make, draw = WORLDS[name]

    def world(seed: int) -> tuple[np.ndarray, ...]:
        source = rng(seed)
        atoms = make(source)
        sample = draw(atoms, 50, source)
        return atoms.directions_fd, sample.a_nf, sample.x_nd

    for one, same, other in zip(world(3), world(3), world(4), strict=True):
        assert one.dtype == np.float32
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)
