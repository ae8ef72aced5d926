"""Measures of SAEs that are built by hand, so that what they must be is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.autoencoders import SAE, Weights
from sae_repro.control import worlds
from sae_repro.control.measure import Matching, assign, measure
from sae_repro.control.worlds import Atoms, Sample
from sae_repro.files import write_json

MARGIN = 0.1  # how far a latent that should be silent is from firing


def tree(d_in: int = 20, n: int = 20_000) -> tuple[Atoms, Sample]:
    atoms = worlds.tree_atoms(d_in, np.random.default_rng(0))
    return atoms, worlds.tree_sample(atoms, n, np.random.default_rng(1))


def built(atoms: Atoms, code_fk: np.ndarray, rows_kd: np.ndarray) -> SAE:
    """The ReLU SAE with z = ‖row‖·max(a·code, 0) wherever a·code is 1 or ≤ 0."""
    norm_k = np.linalg.norm(rows_kd, axis=1)
    dual_df = np.linalg.pinv(atoms.directions_fd.astype(np.float64))
    arrays = (
        (1 + MARGIN) * dual_df @ code_fk * norm_k,
        -MARGIN * norm_k,
        rows_kd / norm_k[:, None],
        np.zeros(atoms.directions_fd.shape[1]),
    )
    return SAE("standard", Weights(*(torch.from_numpy(a.astype(np.float32)) for a in arrays)))


def perfect(atoms: Atoms) -> SAE:
    return built(atoms, np.eye(len(atoms.names)), atoms.directions_fd)


def absorbing(atoms: Atoms) -> SAE:
    """Children carry their parent's direction; the parent's latent is silent where they fire."""
    code, rows = np.eye(len(atoms.names)), atoms.directions_fd.astype(np.float64)
    for parent in atoms.parents:
        children = atoms.children(parent)
        code[children, parent] = -1
        rows[children] += rows[parent]
    return built(atoms, code, rows)


def without(sae: SAE, latents: list[int]) -> SAE:
    kept = [k for k in range(sae.d_sae) if k not in latents]
    return chosen(sae, kept)


def chosen(sae: SAE, latents: list[int]) -> SAE:
    w = sae.weights
    return SAE(
        "standard", Weights(w.W_enc[:, latents], w.b_enc[latents], w.W_dec[latents], w.b_dec)
    )


@pytest.mark.parametrize("d_in", [20, 30])
def test_the_perfect_sae_has_perfect_measures(d_in: int) -> None:
    atoms, sample = tree(d_in)
    found = measure(perfect(atoms), atoms, sample)
    assert found.match_f.tolist() == list(range(20))
    for values in (found.precision_f, found.recall_f, found.f1_f):
        assert values.tolist() == [1.0] * 20
    assert found.hole_p == dict.fromkeys(atoms.parents, 0.0)
    assert found.childless_recall_p == dict.fromkeys(atoms.parents, 1.0)
    assert found.summary(atoms) == pytest.approx(
        {"matched_cosine": 1, "f1": 1, "l0": 1.12, "fvu": 0, "parent_recall": 1,
         "parent_childless_recall": 1, "hole_rate": 0, "child_parent_cosine": 0},
        abs=1e-5, rel=0.03,
    )  # fmt: skip


def test_the_absorbing_sae_has_a_hole_in_every_parent() -> None:
    atoms, sample = tree()
    found = measure(absorbing(atoms), atoms, sample)
    assert found.match_f.tolist() == list(range(20))
    assert found.hole_p == dict.fromkeys(atoms.parents, 1.0)
    assert found.childless_recall_p == dict.fromkeys(atoms.parents, 1.0)
    summary = found.summary(atoms)
    assert summary["hole_rate"] == 1
    assert summary["parent_recall"] == pytest.approx(0.4, abs=0.02)
    assert summary["child_parent_cosine"] == pytest.approx(0.5**0.5, abs=0.03)
    assert summary["l0"] == pytest.approx(3 * 0.15 + 8 * 0.05, abs=0.02)
    assert summary["fvu"] == pytest.approx(0, abs=1e-5)  # absorption loses nothing
    assert found.precision_f.tolist() == [1.0] * 20


def test_a_hole_in_one_child_of_one_parent_is_a_third() -> None:
    atoms, sample = tree()
    parent = atoms.parents[1]
    code = np.eye(20)
    code[atoms.children(parent)[0], parent] = -1
    found = measure(built(atoms, code, atoms.directions_fd), atoms, sample)
    assert [found.hole_p[p] for p in atoms.parents] == pytest.approx([0, 1 / 3, 0])
    assert found.summary(atoms)["hole_rate"] == pytest.approx(1 / 9)


def test_a_latent_that_points_the_other_way_is_no_match() -> None:
    atoms, sample = tree(30)
    away = np.linalg.svd(atoms.directions_fd)[2][-1]  # orthogonal to every atom
    rows = np.vstack([-atoms.directions_fd[:1], atoms.directions_fd[1:], away])
    code = np.hstack([np.eye(20), np.zeros((20, 1))])
    found = measure(built(atoms, code, rows), atoms, sample)
    assert found.match_f.tolist() == [20, *range(1, 20)]
    assert found.cosine_f[0] == pytest.approx(0, abs=1e-5)
    assert found.recall_f[0] == 0  # although latent 0 fires exactly where atom 0 is on
    assert found.summary(atoms)["matched_cosine"] == pytest.approx(19 / 20)


def test_the_assignment_is_the_best_of_all_not_greedy() -> None:
    cosines = np.array([[0.9, 0.8], [0.85, 0.1]])
    assert assign(cosines).tolist() == [1, 0]


def test_an_atom_without_a_latent_counts_as_not_found() -> None:
    atoms, sample = tree()
    lost = [0, 2, 15]  # a parent, a child, a leaf
    found = measure(without(perfect(atoms), lost), atoms, sample)
    kept = [f for f in range(20) if f not in lost]
    assert found.match_f[lost].tolist() == [-1] * 3
    assert found.match_f[kept].tolist() == list(range(17))
    for values in (found.cosine_f, found.precision_f, found.recall_f, found.f1_f):
        assert values[lost].tolist() == [0.0] * 3
        assert values[kept] == pytest.approx(1)
    assert found.hole_p == {0: 1.0, 4: 0.0, 8: 0.0}
    assert found.childless_recall_p == {0: 0.0, 4: 1.0, 8: 1.0}
    assert found.summary(atoms)["matched_cosine"] == pytest.approx(17 / 20)


def test_random_firing_lowers_precision_and_silence_lowers_recall() -> None:
    atoms, sample = tree()
    sae = perfect(atoms)
    always, never = 12, 13
    sae.weights.b_enc[always] = 10.0
    sae.weights.b_enc[never] = -10.0
    found = measure(sae, atoms, sample)
    density = float((sample.a_nf[:, always] > 0).mean())
    assert found.recall_f[always] == 1
    assert found.precision_f[always] == pytest.approx(density)
    assert found.f1_f[always] == pytest.approx(2 * density / (1 + density))
    assert [v[never] for v in (found.precision_f, found.recall_f, found.f1_f)] == [0, 0, 0]


def test_fvu_of_the_mean_is_one_and_of_nothing_is_more() -> None:
    atoms, sample = tree()
    sae = perfect(atoms)
    sae.weights.b_enc.fill_(-10.0)
    silent = measure(sae, atoms, sample)
    assert silent.l0 == 0
    x = sample.x_nd.astype(np.float64)
    assert silent.fvu == pytest.approx(np.square(x).sum() / (len(x) * x.var(0).sum()), rel=1e-5)
    sae.weights.b_dec.copy_(torch.from_numpy(sample.x_nd.mean(0)))
    assert measure(sae, atoms, sample).fvu == pytest.approx(1, rel=1e-5)


def test_a_world_without_parents_has_no_measures_of_them() -> None:
    atoms = worlds.two_atoms(np.random.default_rng(0))
    sample = worlds.two_atoms_sample(atoms, 500, np.random.default_rng(1))
    found: Matching = measure(perfect(atoms), atoms, sample)
    assert set(found.summary(atoms)) == {"matched_cosine", "f1", "l0", "fvu"}
    assert found.cosine_f == pytest.approx(1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_parent_never_alone_or_a_child_never_on_spoils_no_mean(tmp_path: Path) -> None:
    """In a small text the held-out half may lack a concept, or show no parent without a child."""
    rng = np.random.default_rng(0)
    atoms = worlds.oracle_atoms(("name", "she", "he", "food"), np.array([-1, 0, 0, -1]), 8, rng)
    on = np.zeros((100, 4), dtype=bool)
    on[:50, [0, 1]] = True
    summary = measure(perfect(atoms), atoms, worlds.oracle_sample(atoms, on, rng)).summary(atoms)
    write_json(tmp_path / "found.json", summary)


@given(st.permutations(range(24)), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_the_order_of_latents_changes_nothing(order: list[int], seed: int) -> None:
    atoms, sample = tree(n=400)
    rows = np.random.default_rng(seed).standard_normal((24, 20))
    sae = built(atoms, (rows @ np.linalg.pinv(atoms.directions_fd)).T, rows)
    plain, moved = (measure(s, atoms, sample) for s in (sae, chosen(sae, order)))
    assert moved.summary(atoms) == pytest.approx(plain.summary(atoms), rel=1e-5)
    assert [order[k] for k in moved.match_f] == plain.match_f.tolist()


def test_rates_are_those_of_a_plain_count_over_rows() -> None:
    """Against a restatement row by row, of an SAE that fires anywhere and lacks some latents."""
    atoms, sample = tree(n=500)
    rng = np.random.default_rng(4)
    rows = atoms.directions_fd[:17] + 0.2 * rng.standard_normal((17, 20))
    sae = built(atoms, np.eye(20)[:, :17] + (rng.random((20, 17)) < 0.1), rows)
    found = measure(sae, atoms, sample)
    on = sample.a_nf > 0
    fires = [[m >= 0 and z[m] > 0 for m in found.match_f] for z in found.z_nk]
    both = list(zip(np.array(fires), on, strict=True))
    assert (found.match_f < 0).any()
    for f in range(20):
        hits = sum(z[f] and a[f] for z, a in both)
        fired, was_on = sum(z[f] for z, _ in both), sum(a[f] for _, a in both)
        assert found.precision_f[f] == (hits / fired if fired else 0)
        assert found.recall_f[f] == (hits / was_on if was_on else 0)
        assert found.f1_f[f] == (2 * hits / (fired + was_on) if fired + was_on else 0)
    for parent in atoms.parents:
        children = atoms.children(parent)
        holes = [np.mean([not z[parent] for z, a in both if a[c]]) for c in children]
        assert found.hole_p[parent] == np.mean(holes)
        alone = [z[parent] for z, a in both if a[parent] and not a[children].any()]
        assert found.childless_recall_p[parent] == np.mean(alone)
    x_hat = sae.decode(torch.from_numpy(found.z_nk)).double().numpy()
    centred = sample.x_nd - sample.x_nd.mean(0, dtype=np.float64)
    assert found.fvu == np.square(sample.x_nd - x_hat).sum() / np.square(centred).sum()
    assert found.l0 == (found.z_nk > 0).sum() / 500
