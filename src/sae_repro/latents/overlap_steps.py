"""Steps from width to width: what is new, split or copied, by cosine and by firing.

Kinds by firing are those of `compare.widths.relations`, with another measure: a wide latent is a
child of the narrow one in which it is contained by at least a threshold beyond chance
(`latents.overlap`), new without one, a copy if it is an only child, else a split. Latents that fire
on fewer than `LEAST` held-out tokens have none of these: chance alone contains them.

Beside each number stand two that need no feature to be shared: the narrow cell's own seeds against
one another, and the same pair with the wide SAE's tokens in random order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.compare.widths.directions import Nearest, nearest
from sae_repro.compare.widths.relations import KINDS, kinds, shares
from sae_repro.latents.overlap import Overlap, overlap, shuffled, tiles
from sae_repro.latents.overlapping import Level, Member
from sae_repro.numerics.pairs import jackknife, seed_pairs
from sae_repro.numerics.random import generator

Row = dict[str, Any]
Values = dict[str, float]
Pairs = Mapping[tuple[int, int], Values]


@dataclass(frozen=True)
class Related:
    """Two SAEs' latents, by the cosine of their decoder rows and by the tokens they share."""

    by_cosine: Nearest
    by_firing: Overlap
    often: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, narrow: Member, wide: Member, threshold: float) -> "Related":
        """`threshold`: of containment beyond chance."""
        by_firing = overlap(narrow.fires_nk, wide.fires_nk, threshold)
        return cls(nearest(narrow.atoms, wide.atoms), by_firing, wide.often)

    @property
    def as_nearest(self) -> Nearest:
        """The parents by firing of the latents that fire often, as `kinds` and `shares` take it."""
        return _as_nearest(self.by_firing, self.often, len(self.by_cosine.best_n))

    @property
    def same(self) -> npt.NDArray[np.bool_]:
        """Whether cosine and Jaccard name the same narrow latent."""
        same: npt.NDArray[np.bool_] = self.by_cosine.parent_w == self.by_firing.nearest_w
        return same


def _as_nearest(found: Overlap, often: npt.NDArray[np.bool_], narrow: int) -> Nearest:
    return Nearest(found.parent_w[often], found.beyond_w[often], np.zeros(narrow))


def step_rows(levels: Sequence[Level], threshold: float, seed: int) -> Iterator[Row]:
    """A row per two neighbouring widths, means over pairs of different seeds, as `compare` has it.

    Suffixes: _low and _high 95 % of the jackknife over three seeds or more; _same_width, another
    seed of the narrow cell in the wide one's place; _shuffled, tokens of the wide SAE in random
    order.
    """
    for narrow, wide in pairwise(levels):
        n, w = narrow.by_seed, wide.by_seed
        pairs = seed_pairs(*({i: m.name for i, m in side.items()} for side in (n, w)))
        across = {(i, j): _values(n[i], w[j], threshold) for i, j in pairs}
        by_chance = {(i, j): _shuffled(n[i], w[j], threshold, seed) for i, j in pairs}
        within = {(i, j): _values(n[i], n[j], threshold) for i, j in permutations(n, 2)}
        row: Row = {
            "narrow": narrow.name,
            "wide": wide.name,
            "K_narrow": narrow.d_sae,
            "K_wide": wide.d_sae,
            "l0_narrow": float(np.mean([m.l0 for m in narrow.members])),
            "l0_wide": float(np.mean([m.l0 for m in wide.members])),
            "tokens": int(wide.members[0].fires_nk.shape[0]),
            "containment": threshold,
            "seeds": len({i for i, _ in pairs}),
            "pairs": len(pairs),
            "latents_wide": float(np.mean([len(m.atoms) for m in wide.members])),
            "rare_wide": float(np.mean([(~m.often).sum() for m in wide.members])),
        }
        for name in next(iter(across.values())):
            mean, low, high = _over_seeds(name, across)
            row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
            row[f"{name}_same_width"] = _over_seeds(name, within)[0]
            if name in next(iter(by_chance.values())):
                row[f"{name}_shuffled"] = _over_seeds(name, by_chance)[0]
        yield row


def _values(narrow: Member, wide: Member, threshold: float) -> Values:
    """What is measured of two SAEs."""
    found = Related.of(narrow, wide, threshold)
    often, as_nearest = found.often, found.as_nearest
    by_cosine = kinds(found.by_cosine)[often]
    by_firing = kinds(as_nearest, threshold)
    new, same = by_cosine == 0, found.same[often]
    is_child = often.copy()
    is_child[often] = by_firing > 0
    tiled = tiles(narrow.fires_nk, wide.fires_nk, found.by_firing.parent_w, is_child)
    return {
        **{f"cosine_{name}": shares(found.by_cosine)[name] for name in KINDS},
        **_shares(as_nearest, threshold),
        "jaccard": _mean(found.by_firing.jaccard_w[often]),
        "same_nearest": _mean(same),
        "same_nearest_new": _mean(same[new]),
        "same_nearest_old": _mean(same[~new]),
        "contained_new": _mean(by_firing[new] > 0),
        "covered": float(np.median(tiled.covered)) if len(tiled.latent) else np.nan,
        "at_once": float(np.median(tiled.at_once)) if len(tiled.latent) else np.nan,
    }


def _shuffled(narrow: Member, wide: Member, threshold: float, seed: int) -> Values:
    """The same of overlap, with the tokens of the wide SAE in random order."""
    rng = generator(seed, "overlap", narrow.name, wide.name)
    found = overlap(narrow.fires_nk, shuffled(wide.fires_nk, rng), threshold)
    often = wide.often
    as_nearest = _as_nearest(found, often, len(narrow.atoms))
    new = kinds(nearest(narrow.atoms, wide.atoms))[often] == 0
    return {
        **_shares(as_nearest, threshold),
        "jaccard": _mean(found.jaccard_w[often]),
        "contained_new": _mean(kinds(as_nearest, threshold)[new] > 0),
    }


def _shares(found: Nearest, threshold: float) -> Values:
    """Shares of kinds by firing; NaN where no latent fires often enough."""
    names = (*KINDS, "narrow_split", "narrow_lost")
    if not len(found.parent_w):
        return {f"overlap_{name}": np.nan for name in names}
    of = shares(found, threshold)
    return {f"overlap_{name}": of[name] for name in names}


def _over_seeds(name: str, values: Pairs) -> tuple[float, float, float]:
    """(mean over pairs, low, high); NaN where a pair has no value. Bounds are within the range."""
    known = {pair: one[name] for pair, one in values.items()}
    mean, low, high = jackknife(known if np.isfinite([*known.values()]).all() else {})
    least, most = (1.0, np.inf) if name == "at_once" else (0.0, 1.0)
    if np.isfinite(low):
        low, high = max(low, least), min(high, most)
    return mean, low, high


def _mean(values: npt.NDArray[Any]) -> float:
    """NaN of nothing."""
    return float(values.mean()) if len(values) else float("nan")
