"""Mean max correlation: does an SAE hold the latents of a reference SAE, by their activations?

Of each latent r of the reference, the largest correlation of z_r over held-out tokens with a latent
of the SAE; the mean over r. The null is the same with the reference's tokens shifted to other
documents: a maximum over more latents is larger by chance. Latents that never vary over the sample
correlate with nothing; those of the reference are counted as left out. Definition and sample are
those of the metric `mean_max_correlation_<width>` (`evaluate.metrics.references`). Source: B.
Bussmann et al. 2025, arXiv:2503.17547, where references of 30 to 10,000 latents are held against
SAEs with and without prefixes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array, csr_array

from sae_repro.autoencoders import SAE
from sae_repro.evaluate.metrics.references.correlation import (
    EncodedReferences,
    Rows,
    correlations_of_columns,
)
from sae_repro.numerics.pairs import jackknife

LATENTS = 512
"""Of the reference, whose correlations with all of the SAE's are held at once."""


@dataclass(frozen=True)
class Encoded:
    """An SAE's code of the sampled tokens, and the same with its tokens shifted."""

    z_nk: csr_array
    both_nr: csc_array
    """[n, 2 K]: aligned, then shifted; [n, K] of one document, which can't be shifted."""

    @classmethod
    def of(cls, sae: SAE, rows: Rows, seed: int) -> "Encoded":
        """Its code of `rows`; `seed` draws the shift, one for all SAEs of the same rows."""
        encoded = EncodedReferences.of({sae.d_sae: sae}, rows, seed)
        return cls(encoded.small[sae.d_sae], csc_array(encoded.both_nr))

    @property
    def d_sae(self) -> int:
        """K."""
        return int(self.z_nk.shape[1])

    @property
    def l0(self) -> float:
        """Active latents per sampled token."""
        return float(np.count_nonzero(self.z_nk.data) / max(1, self.z_nk.shape[0]))


@dataclass(frozen=True)
class MeanMax:
    """Of a reference and an SAE; NaN where no latent of one of them varies."""

    value: float
    null: float
    """NaN of one document, too."""
    latents: int
    """Of the reference, that vary over the sample: means are over them."""


def mean_max(reference: Encoded, sae: Encoded) -> MeanMax:
    """How well the SAE holds the reference's latents; both are codes of the same rows."""
    best_r = np.concatenate(
        [
            np.fmax.reduce(correlations_of_columns(part, sae.z_nk), axis=1)
            for part in _parts(reference.both_nr)
        ]
    )
    aligned_r, shifted_r = best_r[: reference.d_sae], best_r[reference.d_sae :]
    varies = ~np.isnan(aligned_r)
    if not varies.any():
        return MeanMax(np.nan, np.nan, 0)
    null = float(shifted_r[varies].mean()) if len(shifted_r) else np.nan
    return MeanMax(float(aligned_r[varies].mean()), null, int(varies.sum()))


def _parts(both_nr: csc_array) -> list[csr_array]:
    starts = range(0, both_nr.shape[1], LATENTS)
    return [csr_array(both_nr[:, start : start + LATENTS]) for start in starts]


@dataclass(frozen=True)
class OverSeeds:
    """Means over pairs of different seeds, and the jackknife's 95 % interval over seeds."""

    value: float
    low: float
    """NaN of fewer than three seeds in common, as `high`."""
    high: float
    null: float
    latents: float
    """Of a reference, that vary."""
    pairs: int


def over_seeds(
    reference: Mapping[int, Encoded],
    sae: Mapping[int, Encoded],
    pairs: list[tuple[int, int]],
    done: Callable[[], object] = lambda: None,
) -> OverSeeds:
    """The means over `pairs`, at least one; `done` is called after each."""
    found: dict[tuple[int, int], MeanMax] = {}
    for i, j in pairs:
        found[i, j] = mean_max(reference[i], sae[j])
        done()
    value, low, high = jackknife({pair: one.value for pair, one in found.items()})
    return OverSeeds(
        value,
        float(np.clip(low, -1, 1)),
        float(np.clip(high, -1, 1)),
        float(np.mean([one.null for one in found.values()])),
        float(np.mean([one.latents for one in found.values()])),
        len(pairs),
    )
