"""Every two seeds of a cell against each other, and against what chance would give."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from sae_repro.autoencoders.partners import (
    Directions,
    Floats,
    Match,
    agreed_cosines,
    one_to_one,
    stability,
    unit,
)
from sae_repro.evaluate.consistency.activations import Activations
from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.pairs import further, jackknife
from sae_repro.numerics.random import generator

if TYPE_CHECKING:
    import pandas as pd

SHARED = 0.7  # decoder cosine above which a latent is shared
CURVE = tuple(round(0.05 * i, 2) for i in range(20))  # thresholds of the curve
NULL_DRAWS, SHUFFLES = 10, 3
LARGEST = 8192
"""Latents of an SAE up to which pairs are matched: time grows with their cube, memory squared."""

NAMES = ("pw_mcc", "pw_mcc_all", "shared_fraction", "activation_mcc")
NULLS = ("pw_mcc_null", "shared_fraction_null", "activation_mcc_null")


@dataclass(frozen=True)
class Consistency:
    """What was found of one cell."""

    pairs: "pd.DataFrame"
    """A row per pair of seeds: places, latents, matched, and its values."""
    curve: "pd.DataFrame"
    """A row per pair and threshold: shared_fraction."""
    stability: Mapping[str, Floats]
    """By place, of each latent of its `Directions`."""
    summary: Summary


def measure(
    members: Mapping[str, Directions], activations: Activations | None, seed: int
) -> Consistency:
    """Compare every two of `members` (directions of alive latents, by place).

    `activations` are theirs in the same order; None where there are none to read.
    """
    import pandas as pd

    places = [*members]
    directions = [*members.values()]
    rows, curves = [], []
    matches: dict[tuple[int, int], Match] = {}
    pairs = [
        (i, j)
        for i, j in combinations(range(len(places)), 2)
        if all(0 < len(directions[m].latent) <= LARGEST for m in (i, j))
    ]
    for i, j in pairs:
        a, b = directions[i], directions[j]
        matches[i, j] = match = Match.of(a, b)
        agreed = np.concatenate(agreed_cosines(a, b))
        row = {
            "seed_a": places[i],
            "seed_b": places[j],
            "latents_a": len(a.latent),
            "latents_b": len(b.latent),
            "matched": len(match.cosine),
            "pw_mcc": float(match.cosine.mean()),
            "pw_mcc_all": float(match.cosine.sum() / max(match.latents)),
            "shared_fraction": float((agreed > SHARED).mean()),
            "activation_mcc": None,
        }
        if activations is not None:
            row["activation_mcc"] = _mean_matched(activations.correlations(i, j))
        rows.append(row)
        curves += [
            {**{name: row[name] for name in ("seed_a", "seed_b")}, "threshold": threshold,
             "shared_fraction": float((agreed > threshold).mean())}
            for threshold in CURVE
        ]  # fmt: skip
    columns = ["seed_a", "seed_b", "latents_a", "latents_b", "matched", *NAMES]
    frame = pd.DataFrame(rows, columns=columns)
    curve = pd.DataFrame(curves, columns=["seed_a", "seed_b", "threshold", "shared_fraction"])
    stable = {
        place: stability(m, len(directions[m].latent), matches) for m, place in enumerate(places)
    }
    nulls = _nulls(pairs, directions, activations, seed)
    tokens = 0 if activations is None else activations.tokens
    return Consistency(frame, curve, stable, _summary(frame, pairs, nulls, len(places), tokens))


def _mean_matched(score: Floats) -> float:
    return float(score[one_to_one(score)].mean())


def _nulls(
    pairs: Sequence[tuple[int, int]],
    directions: Sequence[Directions],
    activations: Activations | None,
    seed: int,
) -> dict[str, list[float]]:
    """What chance gives, by metric: draws in which the pairs take turns."""
    draws: dict[str, list[float]] = {name: [] for name in NULLS}
    for number in range(NULL_DRAWS if pairs else 0):
        i, j = pairs[number % len(pairs)]
        rng = generator(seed, "consistency", "directions", number)
        a, b = (_random(directions[m], rng) for m in (i, j))
        draws["pw_mcc_null"].append(float(Match.of(a, b).cosine.mean()))
        agreed = np.concatenate(agreed_cosines(a, b))
        draws["shared_fraction_null"].append(float((agreed > SHARED).mean()))
    if activations is not None and len(activations.starts):
        for number in range(SHUFFLES if pairs else 0):
            i, j = pairs[number % len(pairs)]
            rng = generator(seed, "consistency", "documents", number)
            score = activations.shuffled(i, j, rng)
            draws["activation_mcc_null"].append(_mean_matched(score))
    return draws


def _random(like: Directions, rng: np.random.Generator) -> Directions:
    """As many random directions in as many dimensions, encoder and decoder the same."""
    rows = unit(rng.standard_normal(like.decoder_kd.shape))
    return Directions(like.latent, rows, rows)


def _summary(
    frame: "pd.DataFrame",
    pairs: Sequence[tuple[int, int]],
    nulls: Mapping[str, list[float]],
    seeds: int,
    tokens: int,
) -> Summary:
    metrics: dict[str, float | None] = {}
    intervals: dict[str, list[float]] = {}
    estimates = {
        name: jackknife(
            {
                pair: float(value)
                for pair, value in zip(pairs, frame[name], strict=True)
                if value is not None
            }
        )
        for name in NAMES
    } | {name: further(draws) for name, draws in nulls.items()}
    for name, (mean, low, high) in estimates.items():
        metrics[name] = None if math.isnan(mean) else mean
        if not math.isnan(low):
            intervals[name] = [max(0.0, low), min(1.0, high)]
    counts = {
        "consistency_seeds": seeds,
        "consistency_pairs": len(pairs),
        "consistency_matched": int(frame["matched"].sum()),
        "consistency_latents": int(frame[["latents_a", "latents_b"]].to_numpy().sum()),
        "consistency_tokens": tokens,
    }
    return Summary(metrics, counts, intervals)
