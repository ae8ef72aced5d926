"""One pass over the validation activations: firing and reconstruction, in fp64 accumulators.

Every number is a ratio of sums over all tokens, never a mean of batch ratios: it does not depend on
the batch size or on the order of the shards. Memory is O(K·bins + documents).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.encoder import Encoder
from sae_repro.evaluate.codes import Code, reconstructed
from sae_repro.evaluate.held_out import Batch, Counts, Floats, HeldOut
from sae_repro.evaluate.quantiles import BINS, bin_of
from sae_repro.evaluate.ratios import RECONSTRUCTION, UNSEEN, values
from sae_repro.readers.shards import DOCUMENT

ROWS = 256  # whose errors are computed at once, in fp64: what a cache holds


@dataclass
class Totals:
    """Sums over all evaluated tokens; the metrics of `summarise` are their ratios."""

    held_out: HeldOut
    tokens: int
    fired_k: Counts
    sum_k: Floats
    max_k: Floats
    histogram_kb: Counts
    document_l0: Floats
    """Per document of `held_out`, as are the next four."""
    document_error: Floats
    document_unseen_error: Floats
    """Of the tokens whose prefix no training row has."""
    document_cosine: Floats
    document_cosine_tokens: Counts
    """Tokens whose x and x̂ have a direction: none of zero norm."""
    absolute_error: float
    cosine_square: float
    norm_in: float
    norm_out: float
    norm_in_square: float
    hook_error: list[Floats]
    """Of a crosscoder: ‖x_h − x̂_h‖² per document, at each of its hooks."""
    widths: tuple[int, ...] = ()
    """Of a crosscoder: D_h of its hooks."""

    @property
    def zero_norm(self) -> int:
        """Tokens without a cosine."""
        return self.tokens - int(self.document_cosine_tokens.sum())

    def by_document(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of documents.parquet that the pass gives, sums but for `document`."""
        return {
            "document": self.held_out.document,
            "tokens": self.held_out.tokens,
            "l0_sum": self.document_l0,
            "squared_error": self.document_error,
            "total_variance": self.held_out.variance,
            "cosine_sum": self.document_cosine,
            "cosine_tokens": self.document_cosine_tokens,
            "unseen_tokens": self.held_out.unseen_tokens,
            "unseen_squared_error": self.document_unseen_error,
            "unseen_variance": self.held_out.unseen_variance,
        }


def accumulate(
    sae: SAE,
    batches: Iterable[Batch],
    held_out: HeldOut,
    keep: Callable[[Code], None] = lambda code: None,
    targets: Iterable[Batch] | None = None,
    widths: tuple[int, ...] = (),
) -> Totals:
    """Run the SAE over all batches, those that `held_out` was measured on.

    `keep` receives each batch's code, so that it is encoded once. Of a transcoder `targets` are the
    batches at its target hook, of the same tokens, and `held_out` was measured on them.
    `widths` are those of a crosscoder's hooks.
    """
    k, n = sae.d_sae, len(held_out.document)
    t = Totals(
        held_out=held_out,
        tokens=0,
        fired_k=np.zeros(k, dtype=np.int64),
        sum_k=np.zeros(k),
        max_k=np.zeros(k),
        histogram_kb=np.zeros((k, BINS), dtype=np.int64),
        document_l0=np.zeros(n),
        document_error=np.zeros(n),
        document_unseen_error=np.zeros(n),
        document_cosine=np.zeros(n),
        document_cosine_tokens=np.zeros(n, dtype=np.int64),
        absolute_error=0.0,
        cosine_square=0.0,
        norm_in=0.0,
        norm_out=0.0,
        norm_in_square=0.0,
        hook_error=[np.zeros(n) for _ in widths],
        widths=widths,
    )
    encoder = Encoder(sae)
    own = ((batch, batch[0]) for batch in batches) if targets is None else (
        (batch, target[0]) for batch, target in zip(batches, targets, strict=True)
    )  # fmt: skip
    for (x_nd, index), target_nd in own:
        code, x_hat = reconstructed(encoder, x_nd, index)
        keep(code)
        _add_firing(t, code)
        _add_reconstruction(t, target_nd, x_hat, index)
        place = np.searchsorted(t.held_out.document, index[:, DOCUMENT])
        np.add.at(t.document_l0, place, np.bincount(code.row, minlength=len(x_nd)))
        t.tokens += len(x_nd)
    return t


def _add_firing(t: Totals, code: Code) -> None:
    k, value = len(t.fired_k), code.value.astype(np.float64)
    t.fired_k += np.bincount(code.latent, minlength=k)
    t.sum_k += np.bincount(code.latent, weights=value, minlength=k)
    with np.errstate(invalid="ignore"):  # NaN, of an SAE that has diverged
        np.maximum.at(t.max_k, code.latent, value)
    flat = code.latent * BINS + bin_of(code.value)
    t.histogram_kb += np.bincount(flat, minlength=t.histogram_kb.size).reshape(t.histogram_kb.shape)


def _add_reconstruction(
    t: Totals, x_nd: Tensor, x_hat: Tensor, index: npt.NDArray[np.int32]
) -> None:
    error, norm_in, norm_out, dot = (np.empty(len(x_nd)) for _ in range(4))
    parts_hn = np.empty((len(t.widths), len(x_nd)))
    for start in range(0, len(x_nd), ROWS):
        part = slice(start, start + ROWS)
        x, y = (rows[part].double().cpu().numpy() for rows in (x_nd, x_hat))
        difference = x - y
        error[part], norm_in[part], norm_out[part] = map(_squares, (difference, x, y))
        for of_hook, columns in zip(parts_hn, _columns(difference, t.widths), strict=True):
            of_hook[part] = _squares(columns)
        dot[part] = np.multiply(x, y, out=y).sum(axis=1)
        t.absolute_error += float(np.abs(difference, out=difference).sum())
    place, unseen = (
        np.searchsorted(t.held_out.document, index[:, DOCUMENT]),
        t.held_out.unseen(index),
    )
    np.add.at(t.document_error, place, error)
    np.add.at(t.document_unseen_error, place[unseen], error[unseen])
    for hook_error, of_hook in zip(t.hook_error, parts_hn, strict=True):
        np.add.at(hook_error, place, of_hook)
    t.norm_in_square += float(norm_in.sum())
    norm_in, norm_out = np.sqrt(norm_in), np.sqrt(norm_out)
    usable = (norm_in > 0) & (norm_out > 0)
    cosine = dot[usable] / (norm_in[usable] * norm_out[usable])
    np.add.at(t.document_cosine, place[usable], cosine)
    np.add.at(t.document_cosine_tokens, place[usable], 1)
    t.cosine_square += float(np.square(cosine).sum())
    t.norm_in += float(norm_in.sum())
    t.norm_out += float(norm_out.sum())


def _squares(rows_nd: Floats) -> Floats:
    total: Floats = np.square(rows_nd).sum(axis=1)
    return total


def _columns(rows_nd: Floats, widths: tuple[int, ...]) -> list[Floats]:
    """Those of each hook of a crosscoder."""
    return np.split(rows_nd, np.cumsum(widths)[:-1], axis=1) if widths else []


def summarise(t: Totals, d_in: int, dead_threshold: float) -> dict[str, float | None]:
    """The metrics of firing and reconstruction, named with their units: docs/metrics.md."""
    k = len(t.fired_k)
    density = t.fired_k / t.tokens
    ratio = values(RECONSTRUCTION | UNSEEN, t.by_document())
    error, cosine = float(t.document_error.sum()), ratio["cosine"]
    return {
        "l0": ratio["l0"],
        "dead_fraction_never": float((t.fired_k == 0).sum()) / k,
        "dead_fraction_below": float((t.max_k < dead_threshold).sum()) / k,
        "dead_fraction_below_relative": float((t.max_k < relative_threshold(t)).sum()) / k,
        "density_mean": float(density.mean()),
        "density_median": float(np.median(density)),
        "density_max": float(density.max()),
        "fvu": ratio["fvu"],
        "fvu_unseen": ratio["fvu_unseen"],
        "explained_variance": ratio["explained_variance"],
        "squared_error_per_token": ratio["squared_error_per_token"],
        "mse_per_dim": error / (t.tokens * d_in),
        "mae_per_dim": t.absolute_error / (t.tokens * d_in),
        "cosine": cosine,
        "cosine_spread": None if cosine is None else _cosine_spread(t, cosine),
        "relative_norm": t.norm_out / t.norm_in if t.norm_in > 0 else None,
    }


def _cosine_spread(t: Totals, mean: float) -> float:
    """Standard deviation of the cosine over tokens."""
    square = t.cosine_square / int(t.document_cosine_tokens.sum())
    return float(np.sqrt(max(0.0, square - mean**2)))


def relative_threshold(t: Totals) -> float:
    """1e-3 · √(mean ‖x‖²): a threshold of silence that follows the activations' scale."""
    return float(1e-3 * np.sqrt(t.norm_in_square / t.tokens))
