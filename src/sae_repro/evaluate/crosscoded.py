"""Crosscoders in evaluation: splices at all their hooks at once, and what belongs to each hook."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders import Crosscoder
from sae_repro.evaluate.held_out import held_out
from sae_repro.evaluate.reconstruction import Totals
from sae_repro.evaluate.resumed import Edit
from sae_repro.numerics.bootstrap import LEAST_UNITS, interval, sums
from sae_repro.params.joint import hooks_in, joint
from sae_repro.readers.hooked import edited, point_of, vectors
from sae_repro.readers.joined import LevelledStore

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from sae_repro.params import Evaluate

OWNED = 0.9
"""Of a latent's decoder norms: with at least this share at one hook, the latent is that hook's."""


@dataclass(frozen=True)
class SideBySide:
    """An untouched pass over one batch of tokens [n, T], and what it had at several hooks."""

    subject: "TransformerBridge"
    tokens: Tensor
    hooks: tuple[str, ...]
    widths: tuple[int, ...]
    seen: Tensor
    """[n, T, ΣD_h]."""

    @classmethod
    def of(cls, subject: "TransformerBridge", tokens: Tensor, hook: str) -> "SideBySide":
        """Run `subject` on `tokens`; `hook` is the name of several side by side."""
        hooks = hooks_in(hook)
        cache: Any
        _, cache = subject.run_with_cache(tokens, names_filter=[point_of(h) for h in hooks])
        parts = [vectors(h, cache[point_of(h)]) for h in hooks]
        widths = tuple(int(part.shape[-1]) for part in parts)
        return cls(subject, tokens, hooks, widths, torch.cat(parts, dim=-1))

    @property
    def hook(self) -> str:
        """The name of the hooks side by side."""
        return joint(self.hooks)

    def untouched(self) -> Tensor:
        """The logits [n, T, V]."""
        logits: Any = self.subject(self.tokens)
        return torch.as_tensor(logits)

    def replaced(self, edit: Edit) -> Tensor:
        """The logits [n, T, V] with `edit` of what was seen at all hooks in the place of it.

        A hook behind another gets its part of that edit, whatever has come of the first hook's.
        """
        parts = torch.split(edit(self.seen), [*self.widths], dim=-1)
        hooks: Any = [
            (point_of(hook), edited(hook, _given(part)))
            for hook, part in zip(self.hooks, parts, strict=True)
        ]
        logits: Any = self.subject.run_with_hooks(self.tokens, fwd_hooks=hooks)
        return torch.as_tensor(logits)


def _given(part: Tensor) -> Edit:
    return lambda activation: part.to(activation.dtype)


def by_hook(
    cross: Crosscoder, store: LevelledStore, totals: Totals, settings: "Evaluate", seed: int
) -> dict[str, dict[str, Any]]:
    """By hook: its fvu with a 95 % interval over documents, and how many latents are its own.

    `latents_owned` are those alive with a share of `OWNED` or more of their decoder norms at the
    hook; `decoder_share` is the mean share of the latents alive.
    """
    alive_k, shares = totals.fired_k > 0, cross.shares()
    levels = store.levels(joint(cross.hooks))
    found = {}
    for hook, error, level in zip(cross.hooks, totals.hook_error, levels, strict=True):
        variance = held_out(store, hook, settings.batch_size, settings.device).variance
        share_k = shares[hook].cpu().numpy()[alive_k]
        columns = np.stack([error / level**2, variance], axis=1)
        found[hook] = {
            "fvu": _ratio(columns.sum(0)),
            "fvu_interval": _interval(columns, totals.by_document()["tokens"], seed),
            "decoder_share": float(np.nanmean(share_k)) if len(share_k) else None,
            "latents_owned": int((share_k >= OWNED).sum()),
        }
    return found


def _ratio(total: npt.NDArray[Any]) -> float | None:
    return float(total[0] / total[1]) if total[1] > 0 else None


def _interval(columns: npt.NDArray[Any], tokens: npt.NDArray[Any], seed: int) -> list[float] | None:
    """Over resampled documents, as that of the metric `fvu`."""
    if np.count_nonzero(tokens) < LEAST_UNITS:
        return None
    resampled = sums(columns, seed, "documents")
    with np.errstate(divide="ignore", invalid="ignore"):
        return interval(resampled[:, 0] / resampled[:, 1])


def owners(cross: Crosscoder) -> dict[str, npt.NDArray[Any]]:
    """Columns of crosscoder.parquet, a row per latent and hook: decoder_norm and share."""
    norms, shares = cross.decoder_norms(), cross.shares()
    k = cross.sae.d_sae
    return {
        "latent": np.tile(np.arange(k, dtype=np.int32), len(cross.hooks)),
        "hook": np.repeat(np.array(cross.hooks, dtype=object), k),
        "decoder_norm": np.concatenate([norms[hook].cpu().numpy() for hook in cross.hooks]),
        "share": np.concatenate([shares[hook].cpu().numpy() for hook in cross.hooks]),
    }
