"""Fidelity: the language model's cross-entropy with the SAE's reconstruction spliced in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sae_repro.evaluate.held_out import Counts, Floats

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Replace = Callable[[Tensor], Tensor]
"""From activations [n, D] to what stands in for them [n, D]."""

ROWS = 32  # windows per forward pass


class Windows:
    """The validation rows of the language model that hold the first `tokens` real tokens."""

    def __init__(self, folder: Path, tokens: int) -> None:
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

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Counts]]:
        """(tokens, mask [≤ ROWS, longest], document [≤ ROWS]), in order."""
        for start in range(0, len(self.tokens), ROWS):
            rows = slice(start, start + ROWS)
            longest = int(self.length[rows].max())
            yield self.tokens[rows, :longest], self.mask[rows, :longest], self.document[rows]


@dataclass(frozen=True)
class Spliced:
    """Sums over the targets of each document, untouched and under each replacement."""

    document: Counts
    """Ids of the documents of the windows, sorted; all others have a value per document."""
    targets: Counts
    sums: dict[str, Floats]
    """In nats: `ce_clean`, and for each replacement `ce_<name>` and `kl_<name>`."""


def fidelity(
    subject: "TransformerBridge", windows: Windows, hook: str, replacements: dict[str, Replace]
) -> Spliced:
    """Cross-entropy untouched and under each replacement, and KL(clean ‖ replaced).

    A position counts if it and its target are real tokens; positions that are not (BOS, padding)
    keep their activation in all conditions.
    """
    device = next(subject.parameters()).device
    document = np.unique(windows.document)
    names = ["ce_clean", *(f"{loss}_{name}" for name in replacements for loss in ("ce", "kl"))]
    spliced = Spliced(
        document,
        np.zeros(len(document), dtype=np.int64),
        {name: np.zeros(len(document)) for name in names},
    )
    for tokens, mask, document_of_row in windows.batches():
        tokens, mask = tokens.to(device), mask.to(device)
        valid = mask[:, :-1] & mask[:, 1:]
        target = tokens[:, 1:][valid]
        # row by row, as a mask selects
        row = np.repeat(np.arange(len(tokens)), valid.sum(dim=1).cpu().numpy())
        place = np.searchsorted(document, document_of_row[row])
        np.add.at(spliced.targets, place, 1)
        losses = _losses(subject, tokens, mask, valid, target, hook, replacements)
        for name, loss in losses.items():
            np.add.at(spliced.sums[name], place, loss.double().cpu().numpy())
    return spliced


def _losses(
    subject: "TransformerBridge",
    tokens: Tensor,
    mask: Tensor,
    valid: Tensor,
    target: Tensor,
    hook: str,
    replacements: dict[str, Replace],
) -> dict[str, Tensor]:
    """Each loss of `Spliced.sums` at each `target` [m] of a batch, nats."""
    with torch.no_grad():
        clean = _log_probabilities(subject(tokens), valid)
        losses = {"ce_clean": _cross_entropy(clean, target)}
        for name, replace in replacements.items():
            logits = subject.run_with_hooks(tokens, fwd_hooks=[(hook, _replacer(mask, replace))])
            replaced = _log_probabilities(logits, valid)
            losses[f"ce_{name}"] = _cross_entropy(replaced, target)
            divergence = clean.exp() * (clean - replaced)
            losses[f"kl_{name}"] = divergence.sum(dim=1, dtype=torch.float64)
    return losses


def _cross_entropy(log_probabilities: Tensor, target: Tensor) -> Tensor:
    return -log_probabilities.gather(1, target[:, None])[:, 0]


def _log_probabilities(logits: Tensor, valid: Tensor) -> Tensor:
    return logits[:, :-1][valid].float().log_softmax(dim=-1)


def _replacer(mask: Tensor, replace: Replace) -> Callable[..., Tensor]:
    def hook_function(activation: Tensor, hook: object) -> Tensor:
        result = activation.clone()
        result[mask] = replace(activation[mask].float()).to(activation.dtype)
        return result

    return hook_function
