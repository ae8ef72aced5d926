"""Overlap of latents: against a dense restatement, and of SAEs by construction."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sae_repro.autoencoders import SAE, Weights
from sae_repro.compare.widths.directions import Nearest
from sae_repro.compare.widths.relations import KINDS, kinds
from sae_repro.evaluate.held_out import Batch
from sae_repro.latents import overlap as module
from sae_repro.latents.overlap import NONE, firing, overlap, shuffled, tiles, tokens_each

from .conftest import random_sae


def sparse(dense: np.ndarray) -> csr_array:
    return csr_array(dense.astype(np.int32))


def restated(narrow: np.ndarray, wide: np.ndarray, threshold: float) -> dict[str, list[float]]:
    """Overlap latent by latent, as its definitions are written."""
    n = len(wide)
    names = ("nearest", "jaccard", "parent", "beyond", "containment", "parent_jaccard")
    found: dict[str, list[float]] = {name: [] for name in names}
    for w in wide.T:
        both = [int((w & of).sum()) for of in narrow.T]
        jaccard = [b / int((w | of).sum()) for b, of in zip(both, narrow.T, strict=True)]
        inside = [b / int(w.sum()) for b in both]
        density = [of.sum() / n for of in narrow.T]
        beyond = [0 if p == 1 else (c - p) / (1 - p) for c, p in zip(inside, density, strict=True)]
        meets = [i for i, b in enumerate(both) if b]
        near = max(meets, key=lambda i: (jaccard[i], -i), default=NONE)
        fits = [i for i in meets if beyond[i] >= threshold]
        parent = (
            max(fits, key=lambda i: (jaccard[i], -i))
            if fits
            else max(meets, key=lambda i: (beyond[i], jaccard[i], -i), default=NONE)
        )
        found["nearest"].append(near)
        found["jaccard"].append(jaccard[near] if meets else 0)
        found["parent"].append(parent)
        found["beyond"].append(beyond[parent] if meets else 0)
        found["containment"].append(inside[parent] if meets else 0)
        found["parent_jaccard"].append(jaccard[parent] if meets else 0)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 7), st.integers(1, 9),
    st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from([1, 12, 2**22]),
)  # fmt: skip
def test_overlap_is_its_dense_restatement(
    seed: int, n: int, k_narrow: int, k_wide: int, density: float, threshold: float, pairs: int
) -> None:
    """Whatever the number of pairs that are held at once."""
    rng = np.random.default_rng(seed)
    narrow, wide = (rng.random((n, k)) < density for k in (k_narrow, k_wide))
    for fires in (narrow, wide):  # each latent fires on some token
        fires[rng.integers(n, size=fires.shape[1]), np.arange(fires.shape[1])] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PAIRS", pairs)
        found = overlap(sparse(narrow), sparse(wide), threshold)
    wanted = restated(narrow, wide, threshold)
    np.testing.assert_array_equal(found.nearest_w, wanted["nearest"])
    np.testing.assert_allclose(found.jaccard_w, wanted["jaccard"])
    np.testing.assert_allclose(found.beyond_w, wanted["beyond"], atol=1e-12)
    np.testing.assert_array_equal(found.parent_w, wanted["parent"])
    np.testing.assert_allclose(found.containment_w, wanted["containment"])
    np.testing.assert_allclose(found.parent_jaccard_w, wanted["parent_jaccard"])
    is_child = found.beyond_w >= threshold
    tiled = tiles(sparse(narrow), sparse(wide), found.parent_w, is_child & (found.parent_w >= 0))
    for latent, children, covered, at_once in zip(
        tiled.latent, tiled.children, tiled.covered, tiled.at_once, strict=True
    ):
        own = wide[:, (found.parent_w == latent) & is_child]
        assert children == own.shape[1] > 1
        assert covered == pytest.approx((own.any(axis=1) & narrow[:, latent]).sum()
                                        / narrow[:, latent].sum())  # fmt: skip
        assert at_once == pytest.approx(own.sum() / own.any(axis=1).sum())


def batches(x_nd: torch.Tensor, size: int) -> Iterator[Batch]:
    for x in x_nd.split(size):
        yield x, np.zeros((len(x), 3), np.int32)


def normal(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def test_what_fires_is_what_encode_says_in_any_batches() -> None:
    saes, x_nd = [random_sae(0), random_sae(1)], normal(101, 16)
    for size in (1, 7, 101):
        seen: list[int] = []
        for sae, fires_nk in zip(saes, firing(saes, batches(x_nd, size), seen.append), strict=True):
            np.testing.assert_array_equal(fires_nk.toarray(), (sae.encode(x_nd) > 0).int().numpy())
        assert sum(seen) == 101


def test_an_sae_and_itself_are_copies() -> None:
    [fires_nk] = firing([random_sae()], batches(normal(2000, 16), 256))
    found = overlap(fires_nk, fires_nk, 0.5)
    every = np.arange(fires_nk.shape[1])
    np.testing.assert_array_equal(found.nearest_w, every)
    np.testing.assert_array_equal(found.parent_w, every)
    assert (found.jaccard_w == 1).all() and (found.containment_w == 1).all()
    as_nearest = Nearest(found.parent_w, found.beyond_w, np.zeros(len(every)))
    assert set(kinds(as_nearest, 0.5)) == {KINDS.index("copy")}


def relu(directions: list[list[float]], bias: list[float]) -> SAE:
    rows_kd = torch.tensor(directions, dtype=torch.float32)
    w_dec, b_dec = torch.nn.functional.normalize(rows_kd, dim=1), torch.zeros(rows_kd.shape[1])
    return SAE("standard", Weights(rows_kd.T.contiguous(), torch.tensor(bias), w_dec, b_dec))


def test_a_latent_that_splits_in_two_is_found_with_its_children() -> None:
    """Tokens are e₀ ± e₁ or e₂; the wide SAE has a latent for each sign."""
    kind = torch.arange(300) % 3
    x_nd = torch.zeros(300, 4)
    x_nd[kind < 2, 0] = 1.0
    x_nd[:, 1] = (kind == 0).float() - (kind == 1).float()
    x_nd[kind == 2, 2] = 1.0
    narrow = relu([[1, 0, 0, 0], [0, 0, 1, 0]], [-0.5, -0.5])
    wide = relu([[1, 1, 0, 0], [1, -1, 0, 0], [0, 0, 1, 0]], [-1.5, -1.5, -0.5])
    narrow_nk, wide_nk = firing([narrow, wide], batches(x_nd, 64))
    found = overlap(narrow_nk, wide_nk, 0.5)
    assert found.parent_w.tolist() == [0, 0, 1]
    assert found.containment_w.tolist() == found.beyond_w.tolist() == [1, 1, 1]
    assert found.jaccard_w.tolist() == [0.5, 0.5, 1]
    of = kinds(Nearest(found.parent_w, found.beyond_w, np.zeros(2)), 0.5)
    assert [KINDS[kind] for kind in of] == ["split", "split", "copy"]
    tiled = tiles(narrow_nk, wide_nk, found.parent_w, of > 0)
    assert tiled.latent.tolist() == [0] and tiled.children.tolist() == [2]
    assert tiled.covered.tolist() == [1] and tiled.at_once.tolist() == [1]


def test_a_dense_latent_is_no_parent_by_chance() -> None:
    """Its containment of anything is its density; beyond chance nothing is left of it."""
    rng = np.random.default_rng(0)
    narrow = rng.random((20_000, 2)) < [0.8, 0.02]
    wide = (narrow[:, 1:] & (rng.random((20_000, 1)) < 0.9)) | (rng.random((20_000, 1)) < 0.01)
    found = overlap(sparse(narrow[:, :1]), sparse(wide), 0.5)
    assert found.containment_w[0] == pytest.approx(0.8, abs=0.05)
    assert abs(found.beyond_w[0]) < 0.2
    assert overlap(sparse(narrow), sparse(wide), 0.5).parent_w.tolist() == [1]


def test_shuffled_tokens_share_the_product_of_densities() -> None:
    rng, n = np.random.default_rng(0), 200_000
    p, q = 0.2, 0.05
    narrow = rng.random((n, 1)) < p
    wide = narrow & (rng.random((n, 1)) < q / p)
    assert overlap(sparse(narrow), sparse(wide), 0.5).containment_w[0] == 1
    other = shuffled(sparse(wide), np.random.default_rng(1))
    assert tokens_each(other) == tokens_each(sparse(wide))
    found = overlap(sparse(narrow), other, 0.5)
    deviation = math.sqrt(p * (1 - p) / (q * n))
    assert found.containment_w[0] == pytest.approx(p, abs=4 * deviation)
    assert found.jaccard_w[0] == pytest.approx(p * q / (p + q - p * q), rel=8 * deviation)
    assert abs(found.beyond_w[0]) < 8 * deviation
    np.testing.assert_array_equal(
        other.toarray(), shuffled(sparse(wide), np.random.default_rng(1)).toarray()
    )
