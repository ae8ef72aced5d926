"""Holes and absorption where they are planted: each is found by its own metric."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from sae_repro.control.worlds import tree_atoms, tree_sample
from sae_repro.evaluate.metrics.structure.absorption import dense_probe
from sae_repro.evaluate.metrics.structure.concept_tables import concept_structure
from sae_repro.evaluate.metrics.structure.sample import Sample
from sae_repro.evaluate.metrics.structure.sample_halves import Halves
from sae_repro.numerics.random import generator

D, N = 24, 12_000
CHILDREN = 3


def tree(planted: Callable[..., Sample], *, absorbing: bool) -> Sample:
    """The toy tree under a dictionary made by hand.

    Absorbing: a parent is silent where a child is on, whose latent writes both. Otherwise latents
    are the atoms.
    """
    rng = generator(0, "tree")
    atoms = tree_atoms(D, rng)
    world = tree_sample(atoms, N, rng)
    z, d = world.a_nf.copy(), atoms.directions_fd.copy()
    for parent in atoms.parents if absorbing else []:
        children = atoms.children(parent)
        z[:, parent] *= ~(world.a_nf[:, children] > 0).any(axis=1)
        d[children] += atoms.directions_fd[parent]
    assert z @ d == pytest.approx(world.x_nd, abs=1e-5)
    noise = 0.02 * rng.standard_normal(world.x_nd.shape)
    a = z * np.linalg.norm(d, axis=1)
    return planted(world.a_nf > 0, a, names=atoms.names, x_nd=world.x_nd + noise, d_kd=d)


def test_the_toy_tree_of_a_vanilla_dictionary_is_all_holes(planted: Callable[..., Sample]) -> None:
    frames, summary = concept_structure(tree(planted, absorbing=True), 0)
    pairs = frames.pairs
    assert len(pairs) == 2 * 9
    assert (pairs["status"] == "testable").all()
    assert pairs["hole_rate"].min() > 0.99
    assert pairs["absorption"].min() > 0.99
    for name in ("hole_rate", "absorption_rate", "hole_rate_faint", "absorption_rate_faint"):
        assert summary.metrics[name] == pytest.approx(1, abs=0.01)
    assert summary.metrics["childless_recall"] == pytest.approx(1, abs=0.01)
    # over all latents, the parent is split among its own and its children's
    assert summary.metrics["splitting_mean"] == 3


def test_the_toy_tree_of_a_matryoshka_dictionary_has_none(planted: Callable[..., Sample]) -> None:
    frames, summary = concept_structure(tree(planted, absorbing=False), 0)
    assert (frames.pairs["status"] == "testable").all()
    assert summary.metrics["hole_rate"] == summary.metrics["absorption_rate"] == 0
    assert summary.metrics["splitting_mean"] == 0
    assert summary.metrics["fragmented_fraction"] == 0
    assert summary.metrics["coverage"] == 1
    assert summary.metrics["probe_auc_1"] == pytest.approx(1)
    assert summary.metrics["probe_loss"] == pytest.approx(0, abs=0.05)


def family(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(labels, x): a parent with three children, which cover .6 of it, and a stranger."""
    u = rng.random(N)
    bounds = 0.3 * 0.2 * np.arange(CHILDREN + 1)
    labels = [u < 0.3, *((u >= low) & (u < low + 0.06) for low in bounds[:-1]), rng.random(N) < 0.1]
    on = np.stack(labels, axis=1)
    return on, on @ np.eye(5, D) + 0.02 * rng.standard_normal((N, D))


def in_turn(planted: Callable[..., Sample], on: np.ndarray, n: int) -> np.ndarray:
    """0 … n − 1 in turn over the tokens of a half with the same concepts: nothing is drawn."""
    group = on @ (1 << np.arange(on.shape[1])) * 2 + planted(on, on).bank.fit
    order = np.argsort(group, kind="stable")
    place = np.empty(len(on), dtype=np.int64)
    place[order] = np.arange(len(on)) - np.searchsorted(group[order], group[order])
    return place % n


def latents(
    kind: str, on: np.ndarray, planted: Callable[..., Sample]
) -> tuple[np.ndarray, np.ndarray]:
    """(z, decoder) of a dictionary with one planted fault."""
    eye, z = np.eye(5, D), on.astype(float)
    any_child = on[:, 1:4].any(axis=1)
    if kind in ("absorption", "holes"):
        z[:, 0] *= ~any_child
        # a hole alone: the child's latent writes nothing along the parent
        return z, eye + (np.outer([0, 1, 1, 1, 0], eye[0]) if kind == "absorption" else 0)
    if kind == "weak":
        z[:, 0] *= in_turn(planted, on, 10) < 7
        return z, eye
    if kind in ("splitting", "fragments"):
        # four fragments recall too little each, and more of the parent than a child's latent does
        parts = 3 if kind == "splitting" else 4
        which = in_turn(planted, on, parts)
        pieces = on[:, :1] & (which[:, None] == np.arange(parts))
        return np.concatenate([pieces, z[:, 1:]], axis=1), np.concatenate(
            [np.repeat(eye[:1], parts, axis=0), eye[1:]]
        )
    if kind == "faint":
        z[:, 0] *= np.where(any_child, 0.01, 1)
    return z, eye


@pytest.mark.parametrize(
    ("kind", "hole", "absorbed", "faint", "splitting", "fragmented"),
    [
        ("none", 0, 0, 0, 0, 0),
        ("absorption", 1, 1, 1, 3, 0),
        ("holes", 1, 0, 1, 3, 0),
        ("faint", 0, 0, 1, 3, 0),
        ("weak", 0, 0, 0, 3, 0),
        ("splitting", 0, 0, 0, 2, 0),
        ("fragments", 0, 0, 0, 3, 1),
    ],
)
def test_each_fault_is_found_by_its_own_metric(
    planted: Callable[..., Sample], kind: str, hole: int, absorbed: int, faint: int,
    splitting: int, fragmented: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(0)
    on, x = family(rng)
    z, d = latents(kind, on, planted)
    names = ("parent", "child 0", "child 1", "child 2", "stranger")
    frames, summary = concept_structure(
        planted(on, z * np.linalg.norm(d, axis=1), names=names, x_nd=x, d_kd=d), 0
    )
    zero = frames.pairs[frames.pairs["silence"] == "zero"]
    assert sorted(zero["child"]) == ["child 0", "child 1", "child 2"]
    assert (zero["status"] == "testable").all()
    assert zero["hole_rate"].to_numpy() == pytest.approx(hole, abs=0.01)
    assert zero["absorption"].to_numpy() == pytest.approx(absorbed, abs=0.01)
    assert summary.metrics["hole_rate_faint"] == pytest.approx(faint, abs=0.05)
    assert frames.concepts["splitting"].dropna().tolist() == [splitting]
    assert frames.concepts["fragmented"].tolist() == [bool(fragmented), False, False, False, False]


@pytest.mark.parametrize("kind", ["none", "absorption", "splitting", "fragments"])
def test_dead_and_dense_latents_change_nothing(planted: Callable[..., Sample], kind: str) -> None:
    rng = np.random.default_rng(0)
    on, x = family(rng)
    z, d = latents(kind, on, planted)
    dense = np.abs(rng.standard_normal((N, 4))) * (rng.random((N, 4)) < 0.6)
    z_more = np.concatenate([z, np.zeros((N, 3)), dense], axis=1)
    directions = rng.standard_normal((6, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    d_more = np.concatenate([d, np.zeros((1, D)), directions])
    with_others, alone = (
        concept_structure(planted(on, a * np.linalg.norm(w, axis=1), x_nd=x, d_kd=w), 0)
        for a, w in ((z_more, d_more), (z, d))
    )
    pd.testing.assert_frame_equal(with_others[0].pairs, alone[0].pairs)
    columns = ["splitting", "fragmented", "covered", "union_recall", "recall_at_p80", "phi"]
    pd.testing.assert_frame_equal(with_others[0].concepts[columns], alone[0].concepts[columns])


def test_pairs_that_cannot_be_tested_have_a_reason(planted: Callable[..., Sample]) -> None:
    rng = np.random.default_rng(0)
    on, x = family(rng)
    z, d = latents("none", on, planted)

    def statuses(on: np.ndarray, z: np.ndarray, x: np.ndarray) -> set[str]:
        frames, summary = concept_structure(planted(on, z, x_nd=x, d_kd=d), 0)
        pairs = frames.pairs
        untested = pairs["status"] != "testable"
        assert pairs.loc[untested, ["hole_rate", "absorption"]].isna().all(axis=None)
        assert summary.metrics["hole_rate"] is None or not untested.any()
        return set(pairs["status"])

    assert statuses(on, z, x) == {"testable"}
    full = on.copy()
    full[:, 0] = on[:, 1:4].any(axis=1)
    assert statuses(full, z, x) == {"no childless token"}
    noise = x.copy()
    noise[:, 0] = 0.02 * rng.standard_normal(N)
    noise[:, 1:4] = 0
    assert statuses(on, z, noise) == {"dense probe"}
    weak = z.copy()
    weak[:, 0] *= rng.random(N) < 0.4
    assert statuses(on, weak, x) == {"low recall"}
    silent = z.copy()
    silent[:, [0, 4]] = 0
    assert statuses(on, silent, x) == {"no split set"}


def test_rates_match_their_definitions(planted: Callable[..., Sample]) -> None:
    """A parent that is silent on half of one child, and on a tenth of its own tokens."""
    rng = np.random.default_rng(0)
    on, x = family(rng)
    z, d = latents("none", on, planted)
    z[:, 0] *= np.where(on[:, 1], rng.random(N) < 0.5, rng.random(N) < 0.9)
    d[1] += [0.5, *[0] * (D - 1)]
    frames, _ = concept_structure(planted(on, z * np.linalg.norm(d, axis=1), x_nd=x, d_kd=d), 0)
    row = frames.pairs.query("silence == 'zero' and child == 'c1'").iloc[0]
    sample = planted(on, z, x_nd=x, d_kd=d)
    test = ~sample.bank.fit
    # the dense probe is right everywhere here
    silent, childless = z[:, 0] == 0, on[:, 0] & ~on[:, 1:4].any(axis=1)
    assert row["dense_f1"] > 0.99
    assert row["child_tokens"] == pytest.approx((on[:, 1] & test).sum(), abs=3)
    expected = silent[on[:, 1] & test].mean() - silent[childless & test].mean()
    assert row["hole_rate"] == pytest.approx(expected, abs=0.01)
    assert row["childless_recall"] == pytest.approx(1 - silent[childless & test].mean(), abs=0.01)
    assert row["absorption"] == pytest.approx(silent[on[:, 1] & test].mean(), abs=0.01)
    assert row["absorbers"] == 1


def test_latent_anticorrelated_with_the_parent_does_not_fill_its_hole(
    planted: Callable[..., Sample],
) -> None:
    """It fires on most other tokens and on some children: loud, and in the split set."""
    rng = np.random.default_rng(0)
    on, x = family(rng)
    z, d = latents("holes", on, planted)
    often = np.select([~on[:, 0], on[:, 1:4].any(axis=1)], [0.9, 0.5], 0.3)
    against = 3.0 * (rng.random(N) < often)
    z = np.concatenate([z, against[:, None]], axis=1)
    d = np.concatenate([d, np.eye(1, D, k=9)])
    frames, _ = concept_structure(planted(on, z, x_nd=x, d_kd=d), 0)
    assert (frames.pairs["split_latents"] == 2).all()
    tested = frames.pairs[frames.pairs["status"] == "testable"]
    assert len(tested)
    assert tested["hole_rate"].min() > 0.9


@pytest.mark.parametrize(
    ("cosine", "share", "absorbed"),
    [
        (0.05, 0.6, False),
        (0.15, 0.6, True),
        (0.5, 0.3, False),
        (0.5, 0.5, True),
        (-0.5, 0.6, False),
    ],
)
def test_a_childs_latent_absorbs_from_its_share_and_its_direction_on(
    planted: Callable[..., Sample], cosine: float, share: float, absorbed: bool
) -> None:
    """It writes `share` of what lies along ŵ_p, at that cosine with ŵ_p, on every child token."""
    rng = np.random.default_rng(0)
    on, x = family(rng)
    z, d = latents("holes", on, planted)
    probe = dense_probe(Halves.of(planted(on, z, x_nd=x, d_kd=d)), 0)
    along = np.maximum((x - x.mean(axis=0)) @ probe.direction_d, 0)
    across = rng.standard_normal(D)
    across -= across @ probe.direction_d * probe.direction_d
    across /= np.linalg.norm(across)
    d[1] = cosine * probe.direction_d + np.sqrt(1 - cosine**2) * across
    z[:, 1] *= share * along / abs(cosine)
    frames, _ = concept_structure(planted(on, z, x_nd=x, d_kd=d), 0)
    row = frames.pairs.query("silence == 'zero' and child == 'c1'").iloc[0]
    assert row["hole_rate"] == pytest.approx(1)
    assert row["absorption"] == pytest.approx(float(absorbed))
    assert row["absorbers"] == int(cosine >= 0.1)


def test_tokens_on_which_the_dense_probe_is_wrong_do_not_count(
    planted: Callable[..., Sample],
) -> None:
    """Where x does not say that the parent is on, its silence is no hole."""
    rng = np.random.default_rng(0)
    on, x = family(rng)
    z, d = latents("none", on, planted)
    hidden = on[:, 0] & (rng.random(N) < 0.3)
    x[hidden] = 0.02 * rng.standard_normal((int(hidden.sum()), D))
    z[hidden, 0] = 0
    frames, _ = concept_structure(planted(on, z, x_nd=x, d_kd=d), 0)
    test = ~planted(on, z).bank.fit
    zero = frames.pairs[frames.pairs["silence"] == "zero"]
    assert zero["child_silent"].tolist() == [0, 0, 0]
    assert (zero["childless_recall"] == 1).all()
    seen = sorted((on[:, c] & test & ~hidden).sum() for c in (1, 2, 3))
    assert sorted(zero["child_tokens"]) == pytest.approx(seen, abs=2)
