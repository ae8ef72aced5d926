"""Windows of one latent: those that explain it, and those that score the explanation.

Explaining windows come from documents of the fit half, all others from the test half. Within an
activation quantile, and among silent windows, the draw is by a hash of (seed, latent, token).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_repro.judge.held_out_tokens import HeldOutTokens
from sae_repro.numerics.hashing import least_hash
from sae_repro.params import Judge

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# one salt per use, so that the draws are independent of one another
EXPLAIN, SCORE, RANDOM, HARD, WRONG = (
    f"judge/{purpose}" for purpose in ("explain", "score", "random", "hard", "wrong")
)


@dataclass(frozen=True)
class Window:
    """The window around the row `centre`, with a mark on its row `mark`."""

    mark: int
    centre: int
    quantile: int = -1
    """Activation quantile of the marked token; −1 where the latent is silent on it."""


@dataclass(frozen=True)
class LatentWindows:
    """The windows that explain a latent and those that score the explanation."""

    latent: int
    explain: list[Window]
    positives: list[Window]
    random: list[Window]
    """Windows in which the latent is silent, as many as there are positives."""
    hard: list[Window]
    """Silent windows around a firing of the nearest latent, at most half as many."""
    wrong: list[Window]
    """Positive windows, marked where the latent is silent, at most half as many."""
    population: list[int]
    """Firings in the test half, per quantile."""
    activations: list[list[float]]
    """Per positive window, the activation on each of its tokens."""

    @property
    def scoring(self) -> list[Window]:
        """All windows that score an explanation."""
        return [*self.positives, *self.random, *self.hard, *self.wrong]


def draw_windows(
    latent: int, a_n: Floats, neighbour_n: Mask, tokens: HeldOutTokens, settings: Judge, seed: int
) -> LatentWindows | None:
    """The windows of one latent; None where it fires in one half of the documents only.

    `a_n` [N] are its activations, `neighbour_n` [N] whether the nearest latent fires.
    """
    fires = a_n > 0
    if not (fires & tokens.explain).any() or not (fires & ~tokens.explain).any():
        return None
    sampler = _Sampler(latent, tokens, seed)
    edges = quantile_edges(a_n[fires], settings.quantiles)
    quantile_n = np.where(fires, np.searchsorted(edges, a_n, side="right"), -1)
    scored = np.where(tokens.explain, -1, quantile_n)
    positives = sampler.per_quantile(scored, settings, SCORE)
    before = np.concatenate([[0], np.cumsum(fires)])
    silent = (before[tokens.last] == before[tokens.first]) & ~tokens.explain
    n = len(positives)
    centres = sampler.rows(np.array([w.centre for w in positives], dtype=np.int64), n, WRONG)
    wrong = [
        Window(mark=sampler.rows(still, 1, WRONG)[0], centre=centre)
        for centre in centres
        if len(still := _silent_rows(fires, tokens, centre))
    ]
    return LatentWindows(
        latent=latent,
        explain=sampler.per_quantile(np.where(tokens.explain, quantile_n, -1), settings, EXPLAIN),
        positives=positives,
        random=sampler.windows(np.flatnonzero(silent), n, RANDOM),
        hard=sampler.windows(np.flatnonzero(silent & neighbour_n), n // 2, HARD),
        wrong=wrong[: n // 2],
        population=np.bincount(scored[scored >= 0], minlength=settings.quantiles).tolist(),
        activations=[
            a_n[tokens.first[w.centre] : tokens.last[w.centre]].tolist() for w in positives
        ],
    )


def quantile_edges(values: Floats, n: int) -> Floats:
    """The n − 1 inner edges of n quantile groups, each a value that occurs; equal ones: empty."""
    edges: Floats = np.quantile(values, np.arange(1, n) / n, method="higher").astype(np.float32)
    return edges


def _silent_rows(fires: Mask, tokens: HeldOutTokens, centre: int) -> Ints:
    first, last = tokens.first[centre], tokens.last[centre]
    return np.asarray(first + np.flatnonzero(~fires[first:last]), dtype=np.int64)


class _Sampler:
    """Draws rows for one latent, least hash of (seed, purpose, latent, token) first."""

    def __init__(self, latent: int, tokens: HeldOutTokens, seed: int) -> None:
        self._latent, self._seed, self._key_n = latent, seed, tokens.key

    def rows(self, among: Ints, n: int, purpose: str) -> list[int]:
        """At most `n` of the rows `among`."""
        keys = self._key_n[among]
        latent = np.full(len(keys), self._latent, dtype=np.int64)
        chosen = least_hash(keys, n, self._seed, purpose, latent)
        rows: list[int] = np.searchsorted(self._key_n, chosen).tolist()
        return rows

    def windows(self, among: Ints, n: int, purpose: str) -> list[Window]:
        """At most `n` windows around the rows `among`."""
        return [Window(mark=row, centre=row) for row in self.rows(among, n, purpose)]

    def per_quantile(self, quantile_n: Ints, settings: Judge, purpose: str) -> list[Window]:
        """`contexts_per_quantile` windows around rows of each quantile; −1 is none."""
        return [
            Window(mark=row, centre=row, quantile=quantile)
            for quantile in range(settings.quantiles)
            for row in self.rows(
                np.flatnonzero(quantile_n == quantile), settings.contexts_per_quantile, purpose
            )
        ]
