"""Worlds of spec files: what is drawn is what the file says."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.control.spec_files import read_world
from sae_repro.control.spec_world import (
    base_frequencies,
    drawing,
    mean_largest_cosine,
    true_l0,
)
from sae_repro.errors import StudyError
from sae_repro.numerics.random import generator
from sae_repro.params.worlds import (
    Circles,
    Correlation,
    Frequencies,
    Hierarchy,
    Magnitudes,
    World,
)

TREES = Hierarchy(roots=6, branching=3, depth=3)
SMALL = World(atoms=90, d_in=24, frequencies=Frequencies(lowest=0.01), hierarchy=TREES)
ROWS = 20_000


def on(world: World, n: int = ROWS, name: str = "world") -> np.ndarray:
    return drawing(world, name).sample(n, generator(name, "rows")).a_nf > 0


@given(
    atoms=st.integers(3, 80),
    roots=st.integers(1, 8),
    branching=st.integers(2, 5),
    depth=st.integers(1, 4),
    exclusive=st.floats(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_no_child_without_its_parent_and_no_two_exclusive_siblings(
    atoms: int, roots: int, branching: int, depth: int, exclusive: float
) -> None:
    world = World(
        atoms=atoms, d_in=8, frequencies=Frequencies(lowest=0.2),
        hierarchy=Hierarchy(roots=min(roots, atoms - 1), branching=branching, depth=depth,
                            exclusive=exclusive),
    )  # fmt: skip
    on_nf, drawn = on(world, 300), drawing(world, "world")
    for child, parent in enumerate(world.parents):
        assert parent < child
        assert parent < 0 or not (on_nf[:, child] & ~on_nf[:, parent]).any()
    groups = [g[g >= 0] for level in drawn.forest.exclusive for g in level]
    assert all(on_nf[:, group].sum(1).max() <= 1 for group in groups)
    families = np.unique([p for p in world.parents if p >= 0], return_counts=True)[1]
    assert len(groups) == int((families > 1).sum() * exclusive)


def test_a_hierarchy_has_its_depth_and_siblings_that_are_not_exclusive_meet() -> None:
    parents = SMALL.parents
    depth = [0] * 90
    for atom, parent in enumerate(parents):
        depth[atom] = depth[parent] + 1 if parent >= 0 else 0
    assert [depth.count(level) for level in range(4)] == [6, 18, 54, 12]
    free = SMALL.model_copy(update={"hierarchy": Hierarchy(roots=6, branching=3, exclusive=0)})
    assert on(free)[:, 6:9].sum(1).max() > 1
    assert on(SMALL)[:, 6:9].sum(1).max() == 1


def test_atoms_fire_as_often_as_frequencies_say() -> None:
    world = World(atoms=60, d_in=16, correlation=Correlation(rank=5, scale=0.3))
    wanted = base_frequencies(world)
    assert wanted[0] == pytest.approx(0.4)
    assert wanted[-1] == pytest.approx(5e-4)
    assert (np.diff(wanted) < 0).all()
    error = np.sqrt(wanted * (1 - wanted) / ROWS)
    assert (np.abs(on(world).mean(0) - wanted) < 5 * error).all()
    dense = world.model_copy(update={"frequencies": Frequencies(kind="linear", highest=1.0)})
    assert on(dense)[:, 0].all()


def test_compensated_children_are_on_about_as_often_as_without_a_parent() -> None:
    world = SMALL.model_copy(update={"frequencies": Frequencies(lowest=0.002, exponent=1.0)})
    children = slice(6, 24)
    wanted = base_frequencies(world)[children].sum()
    assert on(world)[:, children].sum() / ROWS == pytest.approx(wanted, rel=0.15)
    tree = TREES.model_copy(update={"compensated": False})
    plain = world.model_copy(update={"hierarchy": tree})
    assert on(plain)[:, children].sum() / ROWS < 0.5 * wanted


def test_atoms_of_a_low_rank_are_on_together_as_their_factor_says() -> None:
    frequencies = Frequencies(kind="linear", highest=0.3, lowest=0.299)
    world = World(atoms=40, d_in=8, frequencies=frequencies,
                  correlation=Correlation(rank=2, scale=0.5))  # fmt: skip
    drawn = drawing(world, "world")
    latent = drawn.factor_fr @ drawn.factor_fr.T
    pairs = np.triu_indices(40, 1)
    measured = np.corrcoef(on(world).T)[pairs]
    assert np.corrcoef(latent[pairs], measured)[0, 1] > 0.98
    assert (
        np.abs(np.corrcoef(on(World(atoms=40, d_in=8, frequencies=frequencies)).T)[pairs]).max()
        < 0.05
    )


@pytest.mark.parametrize("noise", ["normal", "uniform", "exponential"])
def test_magnitudes_have_their_mean_and_spread(noise: str) -> None:
    magnitudes = Magnitudes(first=4.0, last=2.0, spread=0.5, noise=noise)
    world = World(atoms=5, d_in=8, frequencies=Frequencies(lowest=0.39), magnitudes=magnitudes)
    a_nf = drawing(world, "m").sample(ROWS, generator("m")).a_nf
    for atom, mean in enumerate((4.0, 3.5, 3.0, 2.5, 2.0)):
        values = a_nf[:, atom][a_nf[:, atom] > 0]
        assert values.mean() == pytest.approx(mean, abs=0.05)
        assert values.std() == pytest.approx(0.5, abs=0.05)


def test_scaled_children_follow_their_parents() -> None:
    tree = Hierarchy(roots=1, branching=2, depth=1, exclusive=0, scaled=True)
    world = World(atoms=3, d_in=4, frequencies=Frequencies(highest=0.9, lowest=0.8),
                  magnitudes=Magnitudes(spread=0.3), hierarchy=tree)  # fmt: skip
    a_nf = drawing(world, "m").sample(ROWS, generator("m")).a_nf
    both = (a_nf > 0).all(1)
    assert np.corrcoef(a_nf[both].T)[0, 1] > 0.5


@pytest.mark.parametrize("rho", [0.35, 0.6, 0.9])
def test_superposition_is_the_mean_largest_cosine(rho: float) -> None:
    world = World(atoms=100, d_in=24, superposition=rho)
    directions = drawing(world, "rho").atoms.directions_fd.astype(np.float64)
    assert mean_largest_cosine(directions) == pytest.approx(rho, abs=2e-3)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(1)


def test_atoms_that_fit_are_orthogonal_and_an_impossible_superposition_is_named() -> None:
    few = drawing(World(atoms=10, d_in=12), "few").atoms.directions_fd
    assert few @ few.T == pytest.approx(np.eye(10), abs=1e-6)
    with pytest.raises(StudyError, match=r"100 atoms in 4 dimensions were pushed apart to 0\."):
        drawing(World(atoms=100, d_in=4, superposition=0.1), "many")


def test_circles_bias_and_noise_are_beside_the_atoms() -> None:
    still = {"frequencies": Frequencies(highest=1e-6, lowest=1e-6), "atoms": 2, "d_in": 6}
    world = World(**still, circles=Circles(count=2, frequency=0.5, radius=3.0))
    drawn = drawing(world, "circle")
    x_nd = drawn.rows(2000, generator("rows"))
    u_cd, v_cd = drawn.circle_cd
    radius_nc = np.hypot(x_nd @ u_cd.T, x_nd @ v_cd.T)
    assert radius_nc[radius_nc > 1e-3] == pytest.approx(3, rel=1e-5)
    assert (radius_nc > 1e-3).mean() == pytest.approx(0.5, abs=0.05)
    assert np.linalg.norm(drawing(World(**still, bias=2.0), "b").bias_d) == pytest.approx(2)
    noisy = drawing(World(**still, noise=0.3), "n").rows(5000, generator("n"))
    assert noisy.std() == pytest.approx(0.3, rel=0.03)


def test_rows_are_those_of_the_sample_and_names_decide_all() -> None:
    drawn = drawing(SMALL, 0, "a")
    sample = drawn.sample(2500, generator("r"))
    assert np.array_equal(drawn.rows(2500, generator("r")), sample.x_nd)
    assert np.array_equal(drawing(SMALL, 0, "a").atoms.directions_fd, drawn.atoms.directions_fd)
    assert not np.array_equal(drawing(SMALL, 1, "a").atoms.directions_fd, drawn.atoms.directions_fd)
    assert true_l0(SMALL) == pytest.approx((sample.a_nf > 0).sum(1).mean(), rel=0.05)


BENCH = """
kind: sae_lens
config:
  num_features: 16384
  hidden_dim: 768
  firing_probability: {generator_name: zipfian, max_prob: 0.4, min_prob: 5e-4, exponent: 0.5}
  hierarchy:
    total_root_nodes: 128
    branching_factor: 4
    max_depth: 3
    mutually_exclusive_portion: 1.0
    mutually_exclusive_min_depth: 0
    mutually_exclusive_max_depth: null
    compensate_probabilities: true
    scale_children_by_parent: true
  orthogonalization: {num_steps: 100, lr: 3e-4, chunk_size: 1024}
  correlation: {rank: 25, correlation_scale: 0.1, seed: null}
  mean_firing_magnitudes: {generator_name: linear, start: 5.0, end: 4.0}
  std_firing_magnitudes:
    {generator_name: folded_normal, mean: 0.5, std: 0.5, min_value: null, max_value: null}
  bias: 0.5
  dtype: float32
  seed: 42
"""


def test_synthsaebench_16k_is_loaded_from_the_spec_of_saelens(tmp_path: Path) -> None:
    path = tmp_path / "bench.yaml"
    path.write_text(BENCH)
    world = read_world(path)
    assert (world.atoms, world.d_in, world.bias) == (16_384, 768, 0.5)
    assert sum(p >= 0 for p in world.parents) + 128 == 10_880  # 128 · (1 + 4 + 16 + 64)
    assert world.magnitudes == Magnitudes(first=5.0, last=4.0, spread=0.5, spread_sd=0.5)
    assert world.hierarchy is not None and world.hierarchy.scaled
    small = BENCH.replace("16384", "512").replace("768", "64").replace("nodes: 128", "nodes: 4")
    path.write_text(small)
    assert on(read_world(path), 200).shape == (200, 512)
    path.write_text(BENCH.replace("min_depth: 0", "min_depth: 1"))
    with pytest.raises(StudyError, match="mutually_exclusive_min_depth"):
        read_world(path)
