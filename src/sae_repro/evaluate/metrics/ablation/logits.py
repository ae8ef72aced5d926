"""Ablation sparsity: logits of the model before and after one latent is zeroed.

After Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv:2406.04093, section 4.5).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.evaluate.codes import Codes
from sae_repro.evaluate.contexts import Best
from sae_repro.evaluate.passages import Passages
from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.bootstrap import ratio_interval
from sae_repro.numerics.hashing import uniform_hash
from sae_repro.readers.hooked import edited, point_of, vectors
from sae_repro.readers.shards import DOCUMENT, POSITION

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POSITIONS = 16  # the token and the next 15
PAIRS = 256
ROWS = 16  # of a forward pass
NAMES = ("ablation_sparsity", "ablation_effective_logits")


def ablation_sparsity(
    subject: "TransformerBridge",
    sae: SAE,
    hook: str,
    codes: Codes,
    passages: Passages,
    seed: int,
    target: str | None = None,
) -> tuple["pd.DataFrame", Summary]:
    """A row per sampled pair of a latent and a token on which it fires: latent, document, position,
    l1, l2 (of the logit differences), ablation_sparsity, ablation_effective_logits.

    The sample: the 256 pairs with the least hash of (seed, latent, document, position) among all
    firings that `codes` stream (of `sae`) with 15 further tokens behind them in the
    model's row. At that token z_j·d_j is subtracted from the activation at `hook` (a transcoder's:
    at `target`), so that the SAE's error stays. The differences, over V logits × 16 positions, each
    less its position's median, count (L1/L2)² logits in effect, and their fraction (L1/L2)² /
    (V·16) is the sparsity: the smaller, the sparser. Pairs whose differences are all zero are left
    out of the means, and counted. The intervals resample latents.
    """
    import pandas as pd

    latent, document, position, eligible = _sampled(codes, passages, seed)
    row, column = passages.find(document, position)
    norms, vocabulary = np.zeros((len(latent), 2)), 0
    for start in range(0, len(latent), ROWS):
        part = slice(start, start + ROWS)
        difference = _difference(
            subject, sae, (hook, target or hook), passages, latent[part], row[part], column[part]
        )
        norms[part], vocabulary = _norms(difference), difference.shape[2]
    effect = norms[:, 1] > 0
    effective = np.full(len(latent), np.nan)
    effective[effect] = (norms[effect, 0] / norms[effect, 1]) ** 2
    frame = pd.DataFrame(
        {
            "latent": latent,
            "document": document,
            "position": position,
            "l1": norms[:, 0],
            "l2": norms[:, 1],
            NAMES[0]: effective / max(1, vocabulary * POSITIONS),
            NAMES[1]: effective,
        }
    )
    counts = {
        "ablation_pairs": int(effect.sum()),
        "ablation_pairs_without_effect": int((~effect).sum()),
        "ablation_pairs_eligible": eligible,
        "ablation_latents": len(np.unique(latent[effect])),
        "ablation_vocabulary": vocabulary,
    }
    return frame, _summary(frame[effect], counts, seed)


def _sampled(codes: Codes, passages: Passages, seed: int) -> tuple[Ints, Ints, Ints, int]:
    """(latent, document, position) of the sampled pairs, and from how many they were drawn."""
    best, eligible = Best(1, PAIRS), 0
    for code in codes():
        row, column = passages.find(code.index[:, DOCUMENT], code.index[:, POSITION])
        entries = (column + POSITIONS <= passages.length[row])[code.row]
        latent, at = code.latent[entries], code.row[entries]
        document, position = code.index[at, DOCUMENT], code.index[at, POSITION]
        draw = uniform_hash(seed, "ablation", latent, document, position)
        eligible += len(latent)
        best.add(np.zeros_like(latent), draw, document, position, latent)
    _, _, document, position, latent = best.entries()
    return latent.astype(np.int64), document, position, eligible


def _difference(
    subject: "TransformerBridge",
    sae: SAE,
    hooks: tuple[str, str],
    passages: Passages,
    latent: Ints,
    row: Ints,
    column: Ints,
) -> Tensor:
    """Ablated less clean logits [n, 16, V] on the token and the next 15, fp64.

    `hooks` are the one that `sae` reads and the one that its atoms are directions at.
    """
    hook, target = hooks
    device = next(subject.parameters()).device
    tokens = torch.from_numpy(passages.tokens[row, : int(column.max()) + POSITIONS]).to(device)
    entries = torch.arange(len(row), device=device)
    at, of = (torch.from_numpy(part).to(device) for part in (column, latent))
    window = at[:, None] + torch.arange(POSITIONS, device=device)
    with torch.no_grad():
        cache: Any
        clean, cache = subject.run_with_cache(tokens, names_filter=[point_of(hook)])
        x_nd = vectors(hook, cache[point_of(hook)])[entries, at]
        z_n = sae.encode(x_nd.float())[entries, of]
        subtract = _subtract(entries, at, z_n[:, None] * sae.weights.W_dec[of])
        ablated = subject.run_with_hooks(
            tokens, fwd_hooks=[(point_of(target), edited(target, subtract))]
        )
    of_window = entries[:, None], window
    difference: Tensor = ablated[of_window].double() - clean[of_window].double()
    return difference


def _subtract(entries: Tensor, at: Tensor, part_nd: Tensor) -> Callable[[Tensor], Tensor]:
    def edit(activation: Tensor) -> Tensor:
        result = activation.clone()
        result[entries, at] -= part_nd.to(activation.dtype)
        return result

    return edit


def _norms(difference_npv: Tensor) -> Floats:
    """(L1, L2) [n, 2] of the differences, each less the median of its position's vocabulary."""
    ordered = difference_npv.sort(dim=2).values
    half = ordered.shape[2] // 2
    # of an even number, the mean of the two in the middle
    median = (ordered[..., half] + ordered[..., ordered.shape[2] - 1 - half]) / 2
    centred = (difference_npv - median[..., None]).flatten(1)
    return torch.stack([centred.abs().sum(1), centred.norm(dim=1)], dim=1).cpu().numpy()


def _summary(frame: "pd.DataFrame", counts: dict[str, int], seed: int) -> Summary:
    if frame.empty:
        return Summary(dict.fromkeys(NAMES), counts, {})
    of_latent = frame.groupby("latent")
    pairs = of_latent.size().to_numpy()
    return Summary(
        {name: float(frame[name].mean()) for name in NAMES},
        counts,
        {
            name: ratio_interval(of_latent[name].sum().to_numpy(), pairs, seed, name)
            for name in NAMES
        },
    )
