"""The latents that a judge labels: the most and least selective ones, and a uniform sample.

Selectivity of a latent = mean of its positive activations / ln(their number + 1), for latents with
at least 10. The published grid has the judge label the 25 most and the 25 least selective ones;
extremes are not the population, so a uniform sample of the alive latents stands beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sae_repro.judge.held_out_tokens import HeldOutTokens
from sae_repro.numerics.hashing import least_hash
from sae_repro.params import Judge

LEAST_POSITIVES = 10
EXTREMES = 25
UNIFORM = 50
SALT = "judge/uniform"
"""Of the sample and of the latents to explain alike: these are thus a part of the sample."""


def selectivity(
    positive_sum_k: npt.NDArray[np.float64], positive_count_k: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Selectivity of each latent [K]; NaN below 10 positive activations.

    `positive_sum_k` is the sum of a latent's positive activations, `positive_count_k` their number.
    """
    enough = positive_count_k >= LEAST_POSITIVES
    n_k = np.where(enough, positive_count_k, LEAST_POSITIVES).astype(np.float64)
    return np.where(enough, positive_sum_k / n_k / np.log(n_k + 1), np.nan)


@dataclass(frozen=True)
class Selection:
    """The latents to label. A latent of the sample may be an extreme, too."""

    top: list[int]
    bottom: list[int]
    uniform: list[int]
    too_few: int
    """Alive latents with fewer than 10 positive activations, which can be no extremes."""

    @property
    def all(self) -> list[int]:
        """The selected latents, each once, in ascending order."""
        return sorted({*self.top, *self.bottom, *self.uniform})


def select_latents(
    selectivity_k: npt.NDArray[np.float64],
    alive_k: npt.NDArray[np.bool_],
    seed: int,
    *,
    extremes: int = EXTREMES,
    uniform: int = UNIFORM,
) -> Selection:
    """The most and the least selective, most extreme first, and a sample of the alive ones.

    With fewer than 2 · `extremes` latents to rank, each end gets half. Equal ones: lower number
    first. The sample is by a hash of (seed, latent): a latent's draw depends on no other latent.
    """
    ranked = np.flatnonzero(np.isfinite(selectivity_k))
    n = min(extremes, len(ranked) // 2)
    falling = ranked[np.argsort(-selectivity_k[ranked], kind="stable")]
    alive = np.flatnonzero(alive_k)
    return Selection(
        top=falling[:n].tolist(),
        bottom=falling[::-1][:n].tolist(),
        uniform=sorted(least_hash(alive, uniform, seed, SALT).tolist()),
        too_few=int((alive_k & ~np.isfinite(selectivity_k)).sum()),
    )


@dataclass(frozen=True)
class SelectedLatents:
    """The selected latents of an SAE, with the rows on which their contexts are marked."""

    alive_k: npt.NDArray[np.bool_]
    selection: Selection
    explained: list[int]
    """Latents of the uniform sample to explain."""
    marks: Mapping[int, list[int]]
    """Per selected latent, the marked rows of its contexts, largest activation first."""


def selected_latents(
    evaluated: Path, tokens: HeldOutTokens, settings: Judge, seed: int
) -> SelectedLatents:
    """The selection from latents.parquet and contexts.parquet in the folder `evaluated`."""
    import pandas as pd

    table = pd.read_parquet(evaluated / "latents.parquet", columns=["n_fired", "mean_activation"])
    fired_k = table["n_fired"].to_numpy(np.int64)
    sum_k = table["mean_activation"].fillna(0.0).to_numpy(np.float64) * fired_k
    alive_k = fired_k > 0
    selection = select_latents(
        selectivity(sum_k, fired_k), alive_k, seed,
        extremes=settings.extremes, uniform=settings.uniform,
    )  # fmt: skip
    n = settings.latents if settings.scores else 0
    explained = least_hash(np.array(selection.uniform, dtype=np.int64), n, seed, SALT)
    contexts = pd.read_parquet(
        evaluated / "contexts.parquet", columns=["latent", "document", "position"]
    )
    contexts = contexts[contexts["latent"].isin(selection.all)].drop_duplicates()
    rows = tokens.find(contexts["document"].to_numpy(), contexts["position"].to_numpy())
    by_latent = pd.Series(rows).groupby(contexts["latent"].to_numpy(), sort=True)
    marks = {int(str(latent)): group.tolist() for latent, group in by_latent}
    return SelectedLatents(alive_k, selection, sorted(explained.tolist()), marks)
