"""Latents of two SAEs as partners: one to one, or each the other's nearest, by their directions.

All products are fp64. Of equally good partners the one with the lower number is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.autoencoders.weights import Weights

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

APART = -2.0
"""In place of a cosine, where the decoder's nearest partner is not the encoder's."""


@dataclass(frozen=True)
class Directions:
    """The directions of the latents `latent` [K] of an SAE, unit rows [K, D]; zeros stay zero.

    The encoder's is the latent's column of W_enc in every architecture: biases and thresholds only
    shift its pre-activation, and a gated SAE's magnitude has the gate's column times e^r > 0.
    """

    latent: Ints
    encoder_kd: Floats
    decoder_kd: Floats

    @classmethod
    def of(cls, weights: Weights, latent: Ints) -> "Directions":
        """Of these latents of an SAE."""
        encoder = weights.W_enc.detach().double().cpu().numpy().T[latent]
        decoder = weights.W_dec.detach().double().cpu().numpy()[latent]
        return cls(latent, unit(encoder), unit(decoder))


def unit(rows: npt.ArrayLike) -> Floats:
    """Rows of norm 1, or 0."""
    rows = np.asarray(rows, dtype=np.float64)
    norm = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    scaled: Floats = np.ascontiguousarray(rows / np.where(norm > 0, norm, 1.0))
    return scaled


def cosines(a_kd: Floats, b_kd: Floats) -> Floats:
    """[K_a, K_b], of unit rows."""
    product: Floats = a_kd @ b_kd.T
    return product


def one_to_one(score_ab: Floats) -> tuple[Ints, Ints]:
    """(rows, columns) of the assignment with the largest sum: min(K_a, K_b) pairs.

    Source: D. F. Crouse 2016, "On implementing 2D rectangular assignment algorithms" (scipy's).
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(score_ab, maximize=True)
    return rows, columns


@dataclass(frozen=True)
class Match:
    """The one-to-one match of the latents of two SAEs by the |cosine| of their decoder rows."""

    rows: Ints
    columns: Ints
    cosine: Floats
    """|cosine| of each pair."""
    latents: tuple[int, int]
    """Of both SAEs; those of the larger that are left over have no partner."""

    @classmethod
    def of(cls, a: Directions, b: Directions) -> "Match":
        """The match with the largest sum."""
        score = np.abs(cosines(a.decoder_kd, b.decoder_kd))
        rows, columns = one_to_one(score)
        return cls(rows, columns, score[rows, columns], (len(a.latent), len(b.latent)))


def stability(member: int, latents: int, matches: Mapping[tuple[int, int], Match]) -> Floats:
    """Of each of its latents, the mean |cosine| with its partners in the other SAEs; 0 for none.

    `matches` are those of pairs of SAEs by their numbers; NaN where `member` is in none of them.
    """
    found = []
    for pair, match in matches.items():
        if member in pair:
            cosine = np.zeros(latents)
            cosine[match.rows if member == pair[0] else match.columns] = match.cosine
            found.append(cosine)
    mean: Floats = np.mean(found, axis=0) if found else np.full(latents, np.nan)
    return mean


def nearest(score_ab: Floats) -> Ints:
    """For each row the column of its largest score."""
    best: Ints = score_ab.argmax(axis=1)
    return best


def agreed_cosines(a: Directions, b: Directions) -> tuple[Floats, Floats]:
    """For each latent of `a` and each of `b`, the decoder cosine with its nearest in the other SAE.

    `APART` where the nearest by encoder column is another latent: it is no common feature then.
    Source: Paulo and Belrose 2025, arXiv:2501.16615.
    """
    decoder, encoder = (
        cosines(a.decoder_kd, b.decoder_kd),
        cosines(a.encoder_kd, b.encoder_kd),
    )
    return _agreed(decoder, encoder), _agreed(decoder.T, encoder.T)


def _agreed(decoder: Floats, encoder: Floats) -> Floats:
    by_decoder = nearest(decoder)
    cosine = decoder[np.arange(len(decoder)), by_decoder]
    agreed: Floats = np.where(by_decoder == nearest(encoder), cosine, APART)
    return agreed


def found_by_all(members: Sequence[Directions], threshold: float) -> Ints:
    """Latents that every SAE found: rows [n, S] of positions in each member's `latent`.

    In each two SAEs the two latents are each other's nearest, by decoder row and by encoder column
    alike, with a decoder cosine above `threshold`. Ordered by position in the first.
    """
    first, *others = members
    here = np.arange(len(first.latent))
    chains = np.stack([here, *(_mutual(first, other, threshold) for other in others)], axis=1)
    chains = chains[(chains >= 0).all(axis=1)]
    for i, a in enumerate(others, start=1):
        for j, b in enumerate(others[i:], start=i + 1):
            chains = chains[_mutual(a, b, threshold)[chains[:, i]] == chains[:, j]]
    return chains


def _mutual(a: Directions, b: Directions, threshold: float) -> Ints:
    """The partner in `b` of each latent of `a`; −1 without one."""
    decoder, encoder = cosines(a.decoder_kd, b.decoder_kd), cosines(a.encoder_kd, b.encoder_kd)
    here, partner = np.arange(len(decoder)), nearest(decoder)
    mutual = decoder[here, partner] > threshold
    mutual &= nearest(encoder) == partner
    for score in (decoder, encoder):
        mutual &= nearest(score.T)[partner] == here
    return np.where(mutual, partner, -1)
