"""What the explorer says of a latent's surroundings, against computations by hand."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_array
from scipy.spatial.distance import pdist

from sae_repro.concepts.bank import ConceptBank
from sae_repro.files import write_json
from sae_repro.params import read_cells
from sae_repro.report.clusters import clusters_of
from sae_repro.report.directions import directions
from sae_repro.report.layout import SIDE, maps, scaled
from sae_repro.report.relations import unit
from sae_repro.report.shown import ShownSae
from sae_repro.report.splitting import Width, family, kin

CELLS = read_cells(
    {},
    {
        **{f"topk-x{n}": {"expansion": n, "activation": "topk", "k": 4, "seeds": [0, 1]}
           for n in (2, 4, 8, 16)},
        "other-k": {"expansion": 6, "activation": "topk", "k": 8, "seeds": [0, 1]},
        "alone": {"expansion": 4, "penalty": "l1", "lambda": 1e-2},
    },
)  # fmt: skip


def shown(cell: str, place: str, artifacts: Path = Path()) -> ShownSae:
    return ShownSae(cell, place, CELLS[cell].members()[place], artifacts)


def test_a_map_of_two_dimensions_keeps_all_distances() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 7))
    drawn = scaled(flat)
    assert np.abs(drawn).max() == SIDE
    ratio = pdist(drawn.astype(float)) / pdist(flat)
    assert ratio == pytest.approx(np.full_like(ratio, np.median(ratio)), rel=0.2)
    assert np.corrcoef(pdist(drawn.astype(float)), pdist(flat))[0, 1] > 0.999


def test_a_map_has_the_alive_latents_nearest_first_its_own_before_them() -> None:
    rng = np.random.default_rng(1)
    atoms_kd = rng.standard_normal((90, 12)).astype(np.float32)
    alive_k = rng.random(90) < 0.8
    cosine_kk = unit(atoms_kd) @ unit(atoms_kd).T
    for k, points in enumerate(maps(atoms_kd, alive_k)):
        if not alive_k[k]:
            assert points == []
            continue
        others = [j for j in np.flatnonzero(alive_k) if j != k]
        nearest = sorted(others, key=lambda j: -cosine_kk[k, j])[:60]
        assert [point[0] for point in points] == [k, *nearest]
        assert points[0][1] >= 0 and points[0][2] >= 0


def test_kin_differ_by_their_width_alone(tmp_path: Path) -> None:
    for name, cell in CELLS.items():
        for place in cell.members():
            status = "failed" if name == "topk-x8" and place == "seed-1" else "ok"
            write_json(tmp_path / "evaluate" / name / place / "metrics.json", {"status": status})

    def names(cell: str, place: str) -> list[str | None]:
        found = kin(CELLS, shown(cell, place, tmp_path))
        return [sae.name if sae is not None else None for sae in found]

    assert names("topk-x4", "seed-0") == ["topk-x2/seed-0", "topk-x8/seed-0"]
    assert names("topk-x4", "seed-1") == ["topk-x2/seed-1", "topk-x16/seed-1"]
    assert names("topk-x2", "seed-0") == [None, "topk-x4/seed-0"]
    assert names("topk-x16", "seed-0") == ["topk-x8/seed-0", None]
    assert names("alone", ".") == [None, None]


def width(cell: str, atoms: int, seed: int) -> Width:
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((50, atoms)) < 0.3, 1.0, 0.0)
    dense[:, 0] = 0  # one is dead
    a_nk = csc_array(dense)
    tokens = [[f"{cell}:{k}"] * 5 for k in range(atoms)]
    atoms_kd = rng.standard_normal((atoms, 6))
    return Width(shown(cell, "seed-0"), atoms_kd, np.diff(a_nk.indptr) > 0, a_nk, tokens)


def test_each_latent_of_the_wider_has_the_nearest_of_the_narrower_as_parent() -> None:
    narrow, wide = width("topk-x2", 5, 0), width("topk-x4", 30, 1)
    cosine_cp = unit(wide.atoms_kd) @ unit(narrow.atoms_kd).T
    cosine_cp[:, 0] = -2
    parent_c = cosine_cp.argmax(axis=1)
    fires, above = (one.a_nk.toarray() > 0 for one in (wide, narrow))
    upwards = family(wide, narrow, None)
    assert upwards[0] == {}
    for c in range(1, 30):
        p = int(parent_c[c])
        together = (fires[:, c] & above[:, p]).sum() / fires[:, c].sum()
        [row] = upwards[c]["parents"]["latents"]
        assert row == [p, pytest.approx(cosine_cp[c, p]), pytest.approx(together),
                       [f"topk-x2:{p}"] * 3]  # fmt: skip
        assert "children" not in upwards[c]
    downwards = family(narrow, None, wide)
    for p in range(1, 5):
        own = [c for c in range(1, 30) if parent_c[c] == p]
        own.sort(key=lambda c: -cosine_cp[c, p])
        listed = downwards[p]["children"]
        assert [row[0] for row in listed["latents"]] == own[:5]
        assert listed["more"] == len(own) - len(own[:5])


class Activations:
    """Validation activations in memory."""

    def __init__(self, x_nd: np.ndarray) -> None:
        self.x_nd = x_nd
        n = len(x_nd)
        self._index = np.stack([np.arange(n) // 8, np.arange(n) % 8, np.zeros(n, int)], axis=1)

    def index(self, _: str) -> "Activations":
        return self

    def whole(self) -> np.ndarray:
        return self._index

    def activations(self, *_: str) -> "Activations":
        return self

    def batches(self, size: int) -> list[np.ndarray]:
        return [self.x_nd[:7], self.x_nd[7:]]


def test_a_concepts_direction_is_the_difference_of_its_means() -> None:
    rng = np.random.default_rng(2)
    x_nd = rng.standard_normal((64, 5)).astype(np.float32)
    labels = rng.random((64, 3)) < 0.4
    store = Activations(x_nd)
    index = store.whole()
    bank = ConceptBank(
        ("a", "b", "c"), ("token",) * 3, csc_array(labels), index[:, 0], index[:, 1], index[:, 2],
        np.ones(64, bool), {},
    )  # fmt: skip
    found = directions(bank, store, "hook")  # type: ignore[arg-type]
    atom_d = rng.standard_normal(5)
    for c, name in enumerate(bank.names):
        wide = x_nd.astype(float)
        direction = wide[labels[:, c]].mean(axis=0) - wide[~labels[:, c]].mean(axis=0)
        expected = direction @ atom_d / np.linalg.norm(direction) / np.linalg.norm(atom_d)
        assert found.cosine(name, atom_d) == pytest.approx(expected)
    assert found.cosine("unknown", atom_d) is None


def test_blocks_of_correlated_latents_are_clusters_and_chains_are_not_one(tmp_path: Path) -> None:
    import pandas as pd

    r = np.eye(9)
    for block in ([0, 3, 5], [1, 2]):
        r[np.ix_(block, block)] = 0.8
    r[5, 1] = r[1, 5] = 0.4  # one link between the blocks
    np.fill_diagonal(r, 1)
    frame = pd.DataFrame({"latent": range(10, 19), **{str(10 + i): r[:, i] for i in range(9)}})
    place = tmp_path / "evaluate/alone"
    place.mkdir(parents=True)
    frame.to_parquet(place / "correlation_map.parquet")
    found = clusters_of(shown("alone", ".", tmp_path))
    assert found is not None
    assert [*found.members()] == [[10, 13, 15], [11, 12]]
    assert found.sizes == [3, 2, 1, 1, 1, 1]
    order = [latent - 10 for latent in found.latents.tolist()]
    np.testing.assert_array_equal(found.correlation, r[np.ix_(order, order)])
