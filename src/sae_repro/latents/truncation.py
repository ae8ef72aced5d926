"""Truncations of a code on held-out tokens: L0 and FVU of each, in one pass over the activations.

A `Cut` says, of each entry of a code, in which of its rising truncations it takes part first:

by strength   the k' largest z of each token, for each k' (`strongest`)
by threshold  z above θ_k', which lets k' per token through on other tokens (`above_thresholds`):
              what a BatchTopK SAE trained at k' would let through
by number     the first l latents, for each l (`first_latents`)

Latents compete as in the whole SAE: a truncation takes entries away, and lets no other one in.
Errors of rising truncations are running sums over one decode; memory is a batch's N·D.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.encoder import Encoder
from sae_repro.autoencoders.selection import row_starts
from sae_repro.evaluate.codes import Code, reconstructed
from sae_repro.evaluate.held_out import Batch, HeldOut
from sae_repro.numerics.bootstrap import LEAST_UNITS, interval, sums
from sae_repro.readers.shards import DOCUMENT

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Group = Callable[[Code], Counts]


@dataclass(frozen=True)
class Cut:
    """Rising truncations of a code."""

    at: tuple[int, ...]
    """k' or l of each, rising."""
    group: Group
    """Of each entry of a code, the first truncation that holds it; `len(at)` where none does."""


@dataclass(frozen=True)
class Truncation:
    """One truncation on held-out tokens; sums by document of a `HeldOut`."""

    at: int
    active: Counts
    """Entries that it holds."""
    error: Floats
    """Σ ‖x − x̂‖² over the document's tokens."""
    held_out: HeldOut

    @property
    def l0(self) -> float:
        """Active latents per token."""
        return float(self.active.sum() / self.held_out.tokens.sum())

    @property
    def fvu(self) -> float:
        """Σ‖x − x̂‖² / Σ‖x − x̄‖² over all tokens, as the metric `fvu`; NaN where x is constant."""
        total = float(self.held_out.variance.sum())
        return float(self.error.sum()) / total if total > 0 else float("nan")

    def fvu_interval(self, seed: int) -> list[float] | None:
        """95 % interval over resampled documents, as that of the metric `fvu`; None of few."""
        if np.count_nonzero(self.held_out.tokens) < LEAST_UNITS:
            return None
        resampled = sums(np.stack([self.error, self.held_out.variance], axis=1), seed, "documents")
        with np.errstate(divide="ignore", invalid="ignore"):
            return interval(resampled[:, 0] / resampled[:, 1])


def strongest(counts: Sequence[int]) -> Cut:
    """The k' largest z of each token, for each k' of the rising `counts`; first latents first."""
    at = np.array(counts)

    def group(code: Code) -> Counts:
        n = len(code.index)
        order = np.lexsort((-code.value, code.row))  # stable: among equals the lower latent
        start_n = row_starts(code.row, n, 1)[:-1]
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - start_n[code.row[order]]
        return np.searchsorted(at, rank, side="right")

    return Cut(tuple(counts), group)


def above_thresholds(counts: Sequence[int], thresholds: Sequence[float]) -> Cut:
    """The z above θ, for the falling `thresholds` of the rising `counts`."""
    rising = np.array(thresholds[::-1], np.float64)

    def group(code: Code) -> Counts:
        return len(rising) - np.searchsorted(rising, code.value.astype(np.float64), side="left")

    return Cut(tuple(counts), group)


def first_latents(lengths: Sequence[int]) -> Cut:
    """Latents 0 … l − 1, for each l of the rising `lengths`."""
    at = np.array(lengths)
    return Cut(tuple(lengths), lambda code: np.searchsorted(at, code.latent, side="right"))


@torch.no_grad()
def measured(
    sae: SAE,
    batches: Iterable[Batch],
    held_out: HeldOut,
    cuts: Sequence[Cut],
    targets: Iterable[Batch] | None = None,
    progress: Callable[[int], object] = lambda tokens: None,
) -> list[list[Truncation]]:
    """The truncations of each of `cuts`, in its order, over all `batches`.

    `held_out` was measured on them; of a transcoder on its `targets`, the batches at its target
    hook of the same tokens. `progress` is called with the tokens of each batch.
    """
    encoder, n = Encoder(sae), len(held_out.document)
    sums_by_cut = [
        [Truncation(at, np.zeros(n, np.int64), np.zeros(n), held_out) for at in cut.at]
        for cut in cuts
    ]
    own = ((batch, batch[0]) for batch in batches) if targets is None else (
        (batch, target[0]) for batch, target in zip(batches, targets, strict=True)
    )  # fmt: skip
    for (x_nd, index), target_nd in own:
        code, _ = reconstructed(encoder, x_nd, index)
        place = np.searchsorted(held_out.document, index[:, DOCUMENT])
        bias_nd = sae.weights.b_dec.expand(len(x_nd), -1)
        start_nd = (sae.with_skip(bias_nd, x_nd).double() - target_nd.double()).numpy()
        for cut, found in zip(cuts, sums_by_cut, strict=True):
            _add(sae, code, cut, found, start_nd, place)
        progress(len(x_nd))
    return sums_by_cut


def _add(
    sae: SAE,
    code: Code,
    cut: Cut,
    found: Sequence[Truncation],
    start_nd: Floats,
    place: Counts,
) -> None:
    """Add a batch, whose errors without any latent are `start_nd`, to the sums `found`."""
    n, group = len(start_nd), cut.group(code)
    error_nd, active_n = start_nd, np.zeros(n, np.int64)
    for number, truncation in enumerate(found):
        taken = group == number
        row = code.row[taken]
        active_n += np.bincount(row, minlength=n)
        parts = (code.latent[taken], code.value[taken], row_starts(row, n, 1)[:-1])
        latent, value, begin_n = map(torch.from_numpy, parts)
        added_nd = torch.nn.functional.embedding_bag(
            latent, sae.weights.W_dec, begin_n, mode="sum", per_sample_weights=value
        )
        error_nd = error_nd + added_nd.double().numpy()
        np.add.at(truncation.active, place, active_n)
        np.add.at(truncation.error, place, np.square(error_nd).sum(axis=1))
