"""Description length: bits per token of an SAE's code, for which latents fire and how strongly.

After Ayonrinde et al. 2024, "Interpretability as compression" (arXiv:2410.11179); values are
quantised so coarsely that the rounding costs 1 % of the variance.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.codes import Codes
from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.bootstrap import mean_interval

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DELTA_FVU = 0.01  # what rounding the activations may add to the FVU
TABLE_BINS = 256  # counted in a table; the few values beyond, in a sorted list
NAMES = ("description_length", "description_length_firing", "description_length_values")


def description_length(
    canonical: Codes, variance: float, fired_k: Ints, tokens: int, seed: int
) -> tuple["pd.DataFrame", Summary]:
    """A row per latent: latent, firing_bits, value_bits, value_bins; and their sums over latents.

    Σ_k [H(density_k) + density_k·H(bins_k)] in bits per token: H(density_k) of the binary "fires or
    not", H(bins_k) of floor(a / q) given that it fires, q = √(12 · .01 · V / L0): a uniform step's
    squared error is q²/12 for each latent that fires. `canonical` streams a of all `tokens`, V =
    `variance` is their mean ‖x − x̄‖², L0 = Σ fired_k / tokens. The entropies are those of the
    counted fractions, and the atoms' own cost is left out. Where nothing fires, or nothing varies,
    the metrics are None.

    The interval is a bootstrap over latents, of K times their mean.
    """
    import pandas as pd

    k, fired = len(fired_k), int(fired_k.sum())
    if not fired or variance <= 0:
        frame = pd.DataFrame(
            {"latent": np.arange(k, dtype=np.int32), "firing_bits": 0.0, "value_bits": 0.0,
             "value_bins": 0}
        )  # fmt: skip
        return frame, Summary(dict.fromkeys(NAMES), {"description_tokens": tokens}, {})
    step = float(np.sqrt(12 * DELTA_FVU * variance * tokens / fired))
    latent, count = _bin_counts(canonical, step, k)
    n_k: Floats = np.bincount(latent, weights=count, minlength=k).astype(np.float64)
    firing = _binary_entropy(n_k / tokens)
    value = n_k / tokens * _entropy(latent, count, n_k)
    frame = pd.DataFrame(
        {
            "latent": np.arange(k, dtype=np.int32),
            "firing_bits": firing,
            "value_bits": value,
            "value_bins": np.bincount(latent, minlength=k),
        }
    )
    sums = dict(zip(NAMES, (firing + value, firing, value), strict=True))
    return frame, Summary(
        {name: float(bits.sum()) for name, bits in sums.items()},
        {"description_tokens": tokens, "description_bins": len(latent)},
        {
            name: [k * bound for bound in mean_interval(bits, seed, name)]
            for name, bits in sums.items()
        },
    )


def _bin_counts(canonical: Codes, step: float, k: int) -> tuple[Ints, Ints]:
    """(latent, count) of every occupied (latent, bin), by latent and count; exact in any order."""
    table = np.zeros(k * TABLE_BINS, dtype=np.int64)
    beyond: dict[int, int] = {}
    waiting: list[Ints] = []  # as long as they are fewer than the table's own entries
    for code in canonical():
        latent, bins = code.latent, (code.value.astype(np.float64) / step).astype(np.int64)
        high = bins >= TABLE_BINS
        if high.any():
            keys, counts = np.unique(bins[high] * k + latent[high], return_counts=True)
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                beyond[key] = beyond.get(key, 0) + count
            latent, bins = latent[~high], bins[~high]
        waiting.append(latent * TABLE_BINS + bins)
        if sum(map(len, waiting)) > len(table):
            table += np.bincount(np.concatenate(waiting), minlength=len(table))
            waiting = []
    if waiting:
        table += np.bincount(np.concatenate(waiting), minlength=len(table))
    # which bin it was no longer matters: its latent and its count do
    occupied = np.flatnonzero(table)
    latents = np.array(list(beyond), dtype=np.int64) % k
    latent = np.concatenate([occupied // TABLE_BINS, latents])
    count = np.concatenate([table[occupied], np.array(list(beyond.values()), dtype=np.int64)])
    order = np.lexsort((count, latent))
    return latent[order], count[order]


def _binary_entropy(p: Floats) -> Floats:
    """−p log₂ p − (1 − p) log₂ (1 − p), 0 at 0 and 1."""
    return _surprise(p) + _surprise(1 - p)


def _surprise(p: Floats) -> Floats:
    """−p log₂ p, 0 at 0."""
    result: Floats = -p * np.log2(p, out=np.zeros_like(p), where=p > 0)
    return result


def _entropy(latent: Ints, count: Ints, n_k: Floats) -> Floats:
    """Bits of each latent's fractions count / n_k; 0 for one that never fires."""
    bits: Any = np.bincount(latent, weights=_surprise(count / n_k[latent]), minlength=len(n_k))
    result: Floats = bits
    return result
