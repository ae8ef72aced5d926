"""Measurements on ladders: relations of two widths, mean max cosines, equivalent widths.

Each is the mean over pairs of different seeds; its interval is the jackknife's over seeds, of three
or more (`numerics.pairs`). Beside it stands the same of two seeds of the narrow cell: what another
seed of the same width would bring, and that of as many random directions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from sae_repro.compare.claim_statistics import crossing
from sae_repro.compare.collect import Result
from sae_repro.compare.widths.directions import Atoms, Nearest, atoms_of, nearest, random_atoms
from sae_repro.compare.widths.ladders import Ladder, by_seed, pairs_of, width_of
from sae_repro.compare.widths.relations import (
    KINDS,
    NEAR,
    THRESHOLDS,
    children,
    hedging,
    kinds,
    shares,
)
from sae_repro.numerics.pairs import jackknife
from sae_repro.numerics.seeds import LEAST_SEEDS, seeds_half

Row = dict[str, Any]
Pairs = Mapping[tuple[int, int], Mapping[str, float]]
EQUIVALENT = ("fvu", "coverage", "monosemantic_fraction", "probe_loss")
"""Metrics in which an SAE's equivalent width is read, where all cells have them."""
DRAWS = 3
"""Of random directions."""


@dataclass
class Dictionaries:
    """The atoms of SAEs, each read once."""

    kept: dict[str, Atoms] = field(default_factory=dict)

    def __getitem__(self, sae: Result) -> Atoms:
        if sae.name not in self.kept:
            self.kept[sae.name] = atoms_of(sae)
        return self.kept[sae.name]


def relation_rows(ladder: Ladder, read: Dictionaries, seed: int) -> Iterator[Row]:
    """A row per two widths of the ladder."""
    for narrow, wide in ladder.pairs:
        pairs, n, w = pairs_of(narrow, wide), by_seed(narrow), by_seed(wide)
        if not all(len(read[s]) for r in (narrow, wide) for s in r.saes):
            continue
        across = {(i, j): _related(n[i], w[j], read) for i, j in pairs}
        alone = len(pairs) == 1
        within = {} if alone else {(i, j): _related(n[i], n[j], read) for i, j in pairs}
        first = read[narrow.saes[0]], read[wide.saes[0]]
        chance = _by_chance(len(first[0]), len(first[1]), first[0].dimensions, seed)
        row: Row = {
            **ladder.place,
            "narrow": narrow.name,
            "wide": wide.name,
            "K_narrow": width_of(narrow),
            "K_wide": width_of(wide),
            "neighbours": "yes" if (narrow, wide) in ladder.steps else "no",
            "seeds": len({i for i, _ in pairs}),
            "pairs": len(pairs),
            "latents_narrow": _mean(len(read[sae]) for sae in narrow.saes),
            "latents_wide": _mean(len(read[sae]) for sae in wide.saes),
        }
        for name in (*KINDS, "narrow_split", "narrow_lost"):
            row |= _estimate(name, across, bounds=(0.0, 1.0))
            row[f"{name}_same_width"] = _mean(one[name] for one in within.values())
            row[f"{name}_random"] = chance[name]
        for name in ("same_concept_copy", "same_concept_split", "same_concept_new",
                     "density_copy", "density_split"):  # fmt: skip
            row[name] = _mean(one[name] for one in across.values())
        for name in ("hedging", "leaning"):
            row |= _estimate(name, across)
            row[f"{name}_same_width"] = _mean(one[name] for one in within.values())
            beyond = {p: {name: across[p][name] - one[name]} for p, one in within.items()}
            row |= _estimate(name, beyond, suffix="_beyond_seeds")
        yield row


def curve_rows(ladder: Ladder, read: Dictionaries) -> Iterator[Row]:
    """A row per two neighbouring widths and threshold: the shares, and those of the same width."""
    for narrow, wide in ladder.steps:
        if not all(len(read[s]) for r in (narrow, wide) for s in r.saes):
            continue
        pairs, n, w = pairs_of(narrow, wide), by_seed(narrow), by_seed(wide)
        alone = len(pairs) == 1
        across = [nearest(read[n[i]], read[w[j]]) for i, j in pairs]
        within = [] if alone else [nearest(read[n[i]], read[n[j]]) for i, j in pairs]
        for threshold in THRESHOLDS:
            row: Row = {**ladder.place, "narrow": narrow.name, "wide": wide.name,
                        "threshold": threshold}  # fmt: skip
            for name in KINDS:
                row[name] = _mean(shares(one, threshold)[name] for one in across)
                row[f"{name}_same_width"] = _mean(shares(one, threshold)[name] for one in within)
            yield row


def correlation_rows(ladder: Ladder, read: Dictionaries, seed: int) -> Iterator[Row]:
    """A row per reference cell and cell: the mean over the reference's latents of max cosine.

    Cells are those of the ladder, its own width as another seed, and those of other architectures.
    Source of the measure: L. Sharkey, D. Braun and B. Millidge 2022, "Taking features out of
    superposition with sparse autoencoders" (mean max cosine similarity).
    """
    for reference in ladder.cells:
        for r in (*ladder.cells, *ladder.others):
            pairs, of_reference, own = pairs_of(reference, r), by_seed(reference), by_seed(r)
            if not pairs or not all(len(read[s]) for one in (reference, r) for s in one.saes):
                continue
            values = {
                (i, j): {"mean_max_cosine": _mean_max(of_reference[i], own[j], read)}
                for i, j in pairs
            }
            sizes = len(read[reference.saes[0]]), len(read[r.saes[0]])
            dimensions = read[r.saes[0]].dimensions
            yield {
                **ladder.place,
                "reference": reference.name,
                "K_reference": width_of(reference),
                "cell": r.name,
                "of": r.architecture,
                "K": width_of(r),
                "seeds": len({i for i, _ in pairs}),
                **_estimate("mean_max_cosine", values, bounds=(-1.0, 1.0)),
                "random": _by_chance(*sizes, dimensions, seed)["mean_max_cosine"],
            }


def equivalent_rows(ladder: Ladder) -> Iterator[Row]:
    """A row per cell of another architecture and metric: K of the ladder with the same value.

    Straight in log K between two widths, seed by seed, never extrapolated; 95 % of Student's t over
    the seeds of log K. `reading` says why there is no number.
    """
    log_k = np.log([width_of(r) for r in ladder.cells])
    for r in ladder.others:
        for metric in EQUIVALENT:
            values = [one.by_seed(metric) for one in (*ladder.cells, r)]
            n = min(map(len, values))
            if not n:
                continue
            *curve_cn, own_n = (np.array(v[:n]) for v in values)
            sizes = np.array([
                crossing(log_k, np.array([c[i] for c in curve_cn]), float(own_n[i]))
                for i in range(n)
            ])  # fmt: skip
            yield {
                **ladder.place,
                "cell": r.name,
                "of": r.architecture,
                "metric": metric,
                "K": width_of(r),
                "value": float(own_n.mean()),
                "l0": r.metrics["l0"],
                "seeds": n,
                **_equivalent(sizes, float(np.log(width_of(r)))),
            }


def _equivalent(sizes: np.ndarray[Any, np.dtype[np.float64]], own: float) -> Row:
    names = ("K_equivalent", "K_equivalent_low", "K_equivalent_high", "ratio", "ratio_low",
             "ratio_high")  # fmt: skip
    found = int(np.isfinite(sizes).sum())
    if found < len(sizes):
        reading = "outside the widths" if not found else f"outside in {len(sizes) - found} seeds"
        return dict.fromkeys(names) | {"reading": reading}
    value = float(sizes.mean())
    half = float(seeds_half(sizes)) if len(sizes) >= LEAST_SEEDS else np.nan
    ends = np.array([value, value - half, value + half])
    both = np.exp(np.concatenate([ends, ends - own])).tolist()
    return dict(zip(names, both, strict=True)) | {"reading": "between widths"}


def _related(narrow: Result, wide: Result, read: Dictionaries) -> dict[str, float]:
    """What is measured of two SAEs."""
    a, b = read[narrow], read[wide]
    found = nearest(a, b)
    return {
        **shares(found),
        **hedging(a, b, found),
        **_densities(narrow, wide, a, b, found),
        **_concepts(narrow, wide, a, b, found),
    }


def _densities(narrow: Result, wide: Result, a: Atoms, b: Atoms, found: Nearest) -> Row:
    """Median over parents of (Σ density of its children) / its own: of one child, of several."""
    before = narrow.latents["log10_density"].to_numpy()[a.latent]
    after = wide.latents["log10_density"].to_numpy()[b.latent]
    near = found.cosine_w >= NEAR
    total = np.bincount(found.parent_w[near], 10.0 ** after[near], len(before))
    ratio, counts = total / 10.0**before, children(found)
    return {
        "density_copy": float(np.median(ratio[counts == 1])) if (counts == 1).any() else np.nan,
        "density_split": float(np.median(ratio[counts > 1])) if (counts > 1).any() else np.nan,
    }


def _concepts(narrow: Result, wide: Result, a: Atoms, b: Atoms, found: Nearest) -> Row:
    """Fraction, of each kind, of the latents whose concept is that of their parent."""
    ours = [_concept_of(sae, atoms) for sae, atoms in ((narrow, a), (wide, b))]
    kind, rows = kinds(found), {}
    for number, name in enumerate(KINDS):
        rows[f"same_concept_{name}"] = np.nan
        if ours[0] is None or ours[1] is None:
            continue
        of = kind == number
        mine, parent = ours[1][of], ours[0][found.parent_w[of]]
        pairs = [
            (m, p) for m, p in zip(mine, parent, strict=True) if m is not None and p is not None
        ]
        if pairs:
            rows[f"same_concept_{name}"] = _mean(m == p for m, p in pairs)
    return rows


def _concept_of(sae: Result, atoms: Atoms) -> np.ndarray[Any, np.dtype[np.object_]] | None:
    """The concept of each latent, None for one without; None where there is no bank."""
    path = sae.evaluated / "monosemantic.parquet"
    if not path.is_file():
        return None
    concept = sae.monosemantic.set_index("latent")["concept"].reindex(atoms.latent)
    return np.array([v if isinstance(v, str) else None for v in concept], dtype=object)


def _mean_max(reference: Result, sae: Result, read: Dictionaries) -> float:
    return float(nearest(read[reference], read[sae]).best_n.mean())


@lru_cache(maxsize=256)
def _by_chance(narrow: int, wide: int, dimensions: int, seed: int) -> Mapping[str, float]:
    """The shares and the mean max cosine of random directions, mean of `DRAWS`."""
    draws = []
    for draw in range(DRAWS):
        a, b = (random_atoms(n, dimensions, seed, side, draw)
                for side, n in (("narrow", narrow), ("wide", wide)))  # fmt: skip
        found = nearest(a, b)
        draws.append({**shares(found), "mean_max_cosine": float(found.best_n.mean())})
    return {name: _mean(one[name] for one in draws) for name in draws[0]}


def _estimate(
    name: str, values: Pairs, *, suffix: str = "", bounds: tuple[float, float] | None = None
) -> Row:
    """The mean over pairs and its interval; NaN where no pair, or not every pair, has one."""
    known = {pair: one[name] for pair, one in values.items() if np.isfinite(one[name])}
    if len(known) < len(values):
        known = {}
    mean, low, high = jackknife(known)
    if bounds is not None and np.isfinite(low):
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return {f"{name}{suffix}": mean, f"{name}{suffix}_low": low, f"{name}{suffix}_high": high}


def _mean(values: Any) -> float:
    """NaN of nothing, and where one is NaN."""
    listed: Sequence[float] = [*values]
    return float(np.mean(listed)) if listed else float("nan")
