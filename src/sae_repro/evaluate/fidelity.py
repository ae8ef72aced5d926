"""Fidelity: the language model's cross-entropy with the SAE's reconstruction spliced in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.evaluate.crosscoded import SideBySide
from sae_repro.evaluate.held_out import Counts, Floats
from sae_repro.evaluate.resumed import Edit, Resumable
from sae_repro.params.joint import is_joint

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Replace = Callable[[Tensor], Tensor]
"""From activations [n, D] to what stands in for them [n, D]."""

ROWS = 32  # windows per forward pass, at most
LOGITS = 2**25  # of a forward pass, 128 MiB; four arrays of that size are held at once
KEPT = 2**24  # log-probabilities of an untouched pass that a process holds, 64 MiB


class Windows:
    """The validation rows of the language model that hold the first `tokens` real tokens.

    `seen` says of each real token, in order, whether a training row has its prefix; None: it is not
    known.
    """

    def __init__(
        self, folder: Path, tokens: int, seen: npt.NDArray[np.bool_] | None = None
    ) -> None:
        read = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("tokens", "mask", "length", "document")
        }
        rows = int(np.searchsorted(np.cumsum(read["mask"].sum(axis=1)), tokens, side="left")) + 1
        # copies: torch must not hold memory that is mapped read-only
        self.tokens = torch.from_numpy(np.array(read["tokens"][:rows], dtype=np.int64))
        self.mask = torch.from_numpy(np.array(read["mask"][:rows]))
        self.length = torch.from_numpy(np.array(read["length"][:rows, 0]))
        self.document = np.array(read["document"][:rows, 0], dtype=np.int64)
        self.unseen = np.zeros(self.mask.shape, dtype=bool)
        """Real tokens whose prefix no training row has, as far as it is known."""
        if seen is not None:
            real = self.mask.numpy()
            self.unseen[real] = ~seen[: int(real.sum())]

    def batches(
        self, d_vocab: int
    ) -> Iterator[tuple[Tensor, Tensor, Counts, npt.NDArray[np.bool_]]]:
        """(tokens, mask [n, longest], document [n], unseen as mask), in order.

        n is `ROWS`, or fewer where a vocabulary of `d_vocab` would make more than `LOGITS` of them.
        """
        size = min(ROWS, max(1, LOGITS // (self.tokens.shape[1] * d_vocab)))
        for start in range(0, len(self.tokens), size):
            rows = slice(start, start + size)
            longest = int(self.length[rows].max())
            part = rows, slice(longest)
            yield self.tokens[part], self.mask[part], self.document[rows], self.unseen[part]


@dataclass(frozen=True)
class Spliced:
    """Sums over the targets of each document, untouched and under each replacement."""

    document: Counts
    """Ids of the documents of the windows, sorted; all others have a value per document."""
    targets: Counts
    unseen_targets: Counts
    """Those predicted at a position whose prefix no training row has."""
    sums: dict[str, Floats]
    """In nats: `ce_clean`, and for each replacement `ce_<name>` and `kl_<name>`; each of them again
    over the unseen targets alone, as `unseen_ce_clean` and so on."""


@dataclass(frozen=True)
class _Batch:
    """One batch of windows, and its untouched pass."""

    clean: Resumable | SideBySide
    few: bool
    """Whether the log-probabilities of all batches are few enough to be kept."""
    mask: Tensor
    valid: Tensor
    """[n, T − 1]: a real token whose target is one, too."""
    target: Tensor
    """[m], row by row, as a mask selects."""
    place: Counts
    """Of each target's document, [m]."""
    unseen: npt.NDArray[np.bool_]
    """[m]: whether it is predicted at a position whose prefix no training row has."""

    def untouched(self) -> Tensor:
        """The log-probabilities of the untouched pass at each target, [m, V]."""
        return self._kept if self.few else self._untouched()

    @cached_property
    def _kept(self) -> Tensor:
        return self._untouched()

    def _untouched(self) -> Tensor:
        return _log_probabilities(self.clean.untouched(), self.valid)


@dataclass(frozen=True)
class Untouched:
    """The untouched passes over all windows: what all SAEs on a hook are compared with."""

    document: Counts
    """As in `Spliced`."""
    batches: list[_Batch]

    @classmethod
    def of(cls, subject: "TransformerBridge", windows: Windows, hook: str) -> "Untouched":
        """Of the activations at `hook` and behind the last block, two of the windows are held."""
        device = next(subject.parameters()).device
        document = np.unique(windows.document)
        few = windows.tokens.numel() * subject.cfg.d_vocab <= KEPT
        batches = []
        for tokens, mask, document_of_row, unseen in windows.batches(subject.cfg.d_vocab):
            of_target = unseen[:, :-1][(mask[:, :-1] & mask[:, 1:]).numpy()]
            tokens, mask = tokens.to(device), mask.to(device)
            valid = mask[:, :-1] & mask[:, 1:]
            row = np.repeat(np.arange(len(tokens)), valid.sum(dim=1).cpu().numpy())
            place = np.searchsorted(document, document_of_row[row])
            with torch.no_grad():
                way = SideBySide if is_joint(hook) else Resumable
                clean = way.of(subject, tokens, hook)
            target = tokens[:, 1:][valid]
            batches.append(_Batch(clean, few, mask, valid, target, place, of_target))
        return cls(document, batches)


def fidelity(untouched: Untouched, replacements: dict[str, Replace]) -> Spliced:
    """Cross-entropy untouched and under each replacement, and KL(clean ‖ replaced).

    A position counts if it and its target are real tokens; positions that are not (BOS, padding)
    keep their activation in all conditions.
    """
    n = len(untouched.document)
    names = ["ce_clean", *(f"{loss}_{name}" for name in replacements for loss in ("ce", "kl"))]
    targets, unseen_targets = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    sums = {f"{among}{name}": np.zeros(n) for among in ("", "unseen_") for name in names}
    for batch in untouched.batches:
        place, unseen = batch.place, batch.unseen
        targets += np.bincount(place, minlength=n)
        unseen_targets += np.bincount(place[unseen], minlength=n)
        for name, loss in _losses(batch, replacements).items():
            loss_m = loss.double().cpu().numpy()
            sums[name] += np.bincount(place, loss_m, minlength=n)
            sums[f"unseen_{name}"] += np.bincount(place[unseen], loss_m[unseen], minlength=n)
    return Spliced(untouched.document, targets, unseen_targets, sums)


def _losses(batch: _Batch, replacements: dict[str, Replace]) -> dict[str, Tensor]:
    """Each loss of `Spliced.sums` at each target [m] of a batch, nats."""
    with torch.no_grad():
        clean = batch.untouched()
        losses = {"ce_clean": _cross_entropy(clean, batch.target)}
        for name, replace in replacements.items():
            edit = _on_real_tokens(batch.mask, replace)
            replaced = _log_probabilities(batch.clean.replaced(edit), batch.valid)
            losses[f"ce_{name}"] = _cross_entropy(replaced, batch.target)
            divergence = (clean - replaced).mul_(clean.exp())
            losses[f"kl_{name}"] = divergence.sum(dim=1, dtype=torch.float64)
    return losses


def _cross_entropy(log_probabilities: Tensor, target: Tensor) -> Tensor:
    return -log_probabilities.gather(1, target[:, None])[:, 0]


def _log_probabilities(logits: Tensor, valid: Tensor) -> Tensor:
    return logits[:, :-1][valid].float().log_softmax(dim=-1)


def _on_real_tokens(mask: Tensor, replace: Replace) -> Edit:
    def edit(activation: Tensor) -> Tensor:
        result = activation.clone()
        result[mask] = replace(activation[mask].float()).to(activation.dtype)
        return result

    return edit
