"""Where a latent fires and where it is silent: the windows that explain it and those that score it.

Explaining windows come from documents of one half, all others from those of the other half. Within
an activation quantile, and among silent windows, the draw is by a hash of (seed, latent, place).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csc_array
from torch import Tensor

from sae_repro.autoencoders import LATENT_AXIS, SAE
from sae_repro.judge.rows import Rows
from sae_repro.numerics.hashing import uniform_hash
from sae_repro.params import Judge

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BATCH = 4096
# set the draws apart from each other, and from others of the same seed
EXPLAIN, SCORE, RANDOM, HARD, WRONG = (
    f"judge/{purpose}" for purpose in ("explain", "score", "random", "hard", "wrong")
)


@dataclass(frozen=True)
class Window:
    """The window around the row `centre`, with a mark on the row `mark` of it."""

    mark: int
    centre: int
    quantile: int = -1
    """Of the marked activation; −1 where the latent is silent."""


@dataclass(frozen=True)
class Material:
    """What there is to explain a latent and to score the explanation."""

    latent: int
    explain: list[Window]
    positives: list[Window]
    random: list[Window]
    """Windows in which the latent is silent, as many as there are positives."""
    hard: list[Window]
    """Such in whose middle the nearest latent fires, half as many at most."""
    wrong: list[Window]
    """Positive windows, marked where the latent is silent, half as many at most."""
    population: list[int]
    """Firings in the scoring half, per quantile."""
    activations: list[list[float]]
    """Of each positive, on the tokens of its window."""


def activations(sae: SAE, batches: Iterable[Tensor], latents: Sequence[int]) -> csc_array:
    """Canonical activations a = z·‖d_k‖ of `latents`, fp32 [N, latents], zeros left out.

    Latents that don't compete for a place (TopK's do) are computed without the others.
    """
    wanted = torch.tensor(latents, dtype=torch.int64, device=sae.weights.W_dec.device)
    norm_k = sae.weights.W_dec.norm(dim=1)[wanted]
    part = sae if sae.latents_compete else restricted(sae, wanted)
    found: list[list[npt.NDArray[Any]]] = [[], [], []]
    done = 0
    for x_nd in batches:
        with torch.no_grad():
            z_nk = part.encode(x_nd)
        a_nk = (z_nk[:, wanted] if part is sae else z_nk) * norm_k
        row, column = a_nk.nonzero(as_tuple=True)
        for kept, new in zip(found, (a_nk[row, column], row + done, column), strict=True):
            kept.append(new.cpu().numpy())
        done += len(x_nd)
    value, row_n, column_n = (np.concatenate(parts) for parts in found)
    return csc_array((value, (row_n, column_n)), shape=(done, len(latents)))


def restricted(sae: SAE, latents: Tensor) -> SAE:
    """The SAE with `latents` alone, in their order; each is computed as in the whole."""
    named = {
        name: tensor.index_select(LATENT_AXIS[name], latents) if name in LATENT_AXIS else tensor
        for name, tensor in sae.weights.named().items()
    }
    return replace(sae, weights=replace(sae.weights, **named))


def nearest(sae: SAE, latents: Sequence[int], alive_k: Mask) -> list[int | None]:
    """For each of `latents` the alive one with the nearest atom by cosine; None without another."""
    atoms_kd = torch.nn.functional.normalize(sae.weights.W_dec, dim=1)
    cosine_nk = (atoms_kd[list(latents)] @ atoms_kd.T).cpu().numpy()
    cosine_nk[:, ~alive_k] = -np.inf
    cosine_nk[np.arange(len(latents)), list(latents)] = -np.inf
    best = cosine_nk.argmax(axis=1)
    return [int(k) if np.isfinite(cosine_nk[i, k]) else None for i, k in enumerate(best.tolist())]


def material(
    latent: int, a_n: Floats, neighbour_n: Mask, rows: Rows, settings: Judge, seed: int
) -> Material | None:
    """The windows of one latent; None where it fires in one half of the documents only.

    `a_n` [N] are its activations, `neighbour_n` [N] says where the nearest latent fires.
    """
    fires = a_n > 0
    if not (fires & rows.explain).any() or not (fires & ~rows.explain).any():
        return None
    place = _Place(latent, rows, seed)
    edges = quantile_edges(a_n[fires], settings.quantiles)
    quantile_n = np.where(fires, np.searchsorted(edges, a_n, side="right"), -1)
    scored = np.where(rows.explain, -1, quantile_n)
    positives = place.per_quantile(scored, settings, SCORE)
    before = np.concatenate([[0], np.cumsum(fires)])
    silent = (before[rows.last] == before[rows.first]) & ~rows.explain
    n = len(positives)
    centres = place.drawn(np.array([w.centre for w in positives], dtype=np.int64), n, WRONG)
    wrong = [
        Window(mark=place.drawn(still, 1, WRONG)[0], centre=centre)
        for centre in centres
        if len(still := _silent_rows(fires, rows, centre))
    ]
    return Material(
        latent=latent,
        explain=place.per_quantile(np.where(rows.explain, quantile_n, -1), settings, EXPLAIN),
        positives=positives,
        random=place.windows(np.flatnonzero(silent), n, RANDOM),
        hard=place.windows(np.flatnonzero(silent & neighbour_n), n // 2, HARD),
        wrong=wrong[: n // 2],
        population=np.bincount(scored[scored >= 0], minlength=settings.quantiles).tolist(),
        activations=[a_n[rows.first[w.centre] : rows.last[w.centre]].tolist() for w in positives],
    )


def quantile_edges(values: Floats, n: int) -> Floats:
    """The n − 1 inner edges of n quantile groups, each a value that occurs; equal ones: empty."""
    edges: Floats = np.quantile(values, np.arange(1, n) / n, method="higher").astype(np.float32)
    return edges


def _silent_rows(fires: Mask, rows: Rows, centre: int) -> Ints:
    first, last = rows.first[centre], rows.last[centre]
    return np.asarray(first + np.flatnonzero(~fires[first:last]), dtype=np.int64)


class _Place:
    """Draws of rows for one latent, least hash of (seed, latent, place, purpose) first."""

    def __init__(self, latent: int, rows: Rows, seed: int) -> None:
        self._latent, self._rows, self._seed = latent, rows, seed

    def drawn(self, among: Ints, n: int, purpose: str) -> list[int]:
        """At most `n` of the rows `among`."""
        rows = self._rows
        each = np.full(len(among), self._latent, dtype=np.int64)
        draw = uniform_hash(self._seed, purpose, each, rows.document[among], rows.position[among])
        if len(among) > n:  # spares the others' sorting
            likely = draw <= np.partition(draw, n - 1)[n - 1] if n else np.zeros(len(draw), bool)
            among, draw = among[likely], draw[likely]
        drawn: list[int] = among[np.lexsort((among, draw))[:n]].tolist()
        return drawn

    def windows(self, among: Ints, n: int, purpose: str) -> list[Window]:
        """At most `n` windows around the rows `among`."""
        return [Window(mark=row, centre=row) for row in self.drawn(among, n, purpose)]

    def per_quantile(self, quantile_n: Ints, settings: Judge, purpose: str) -> list[Window]:
        """`contexts_per_quantile` windows around rows of each quantile; −1 is none."""
        return [
            Window(mark=row, centre=row, quantile=quantile)
            for quantile in range(settings.quantiles)
            for row in self.drawn(
                np.flatnonzero(quantile_n == quantile), settings.contexts_per_quantile, purpose
            )
        ]
