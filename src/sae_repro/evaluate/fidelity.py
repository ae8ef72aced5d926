"""What the language model loses when the SAE's reconstruction takes the activation's place."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

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
            for name in ("tokens", "mask", "length")
        }
        rows = int(np.searchsorted(np.cumsum(read["mask"].sum(axis=1)), tokens, side="left")) + 1
        # copies: torch must not hold memory that is mapped read-only
        self.tokens = torch.from_numpy(np.array(read["tokens"][:rows], dtype=np.int64))
        self.mask = torch.from_numpy(np.array(read["mask"][:rows]))
        self.length = torch.from_numpy(np.array(read["length"][:rows, 0]))

    def batches(self) -> "list[tuple[Tensor, Tensor]]":
        """(tokens, mask) [≤ ROWS, longest], in order."""
        parts = []
        for start in range(0, len(self.tokens), ROWS):
            rows = slice(start, start + ROWS)
            longest = int(self.length[rows].max())
            parts.append((self.tokens[rows, :longest], self.mask[rows, :longest]))
        return parts


def fidelity(
    subject: "TransformerBridge", windows: Windows, hook: str, replacements: dict[str, Replace]
) -> dict[str, Any]:
    """Cross-entropy in nats per valid target, untouched and under each replacement.

    `ce_<name>` and `kl_<name>` = mean KL(clean ‖ replaced) for each of `replacements`, `ce_clean`,
    and the number of targets. A position counts if it and its target are real tokens; positions
    that are not (BOS, padding) keep their activation in all conditions.
    """
    device = next(subject.parameters()).device
    names = list(replacements)
    ce = dict.fromkeys(["clean", *names], 0.0)
    kl = dict.fromkeys(names, 0.0)
    targets = 0
    for tokens, mask in windows.batches():
        tokens, mask = tokens.to(device), mask.to(device)
        valid = mask[:, :-1] & mask[:, 1:]
        target = tokens[:, 1:][valid]
        targets += len(target)
        with torch.no_grad():
            clean = _log_probabilities(subject(tokens), valid)
            ce["clean"] -= float(clean.gather(1, target[:, None]).sum(dtype=torch.float64))
            for name in names:
                replaced = _log_probabilities(
                    subject.run_with_hooks(
                        tokens, fwd_hooks=[(hook, _replacer(mask, replacements[name]))]
                    ),
                    valid,
                )
                ce[name] -= float(replaced.gather(1, target[:, None]).sum(dtype=torch.float64))
                kl[name] += float((clean.exp() * (clean - replaced)).sum(dtype=torch.float64))
    return {
        **{f"ce_{name}": total / targets for name, total in ce.items()},
        **{f"kl_{name}": total / targets for name, total in kl.items()},
        "targets": targets,
    }


def _log_probabilities(logits: Tensor, valid: Tensor) -> Tensor:
    return logits[:, :-1][valid].float().log_softmax(dim=-1)


def _replacer(mask: Tensor, replace: Replace) -> Callable[..., Tensor]:
    def hook_function(activation: Tensor, hook: object) -> Tensor:
        result = activation.clone()
        result[mask] = replace(activation[mask].float()).to(activation.dtype)
        return result

    return hook_function


def recovered(ce_clean: float, ce_sae: float, ce_baseline: float) -> float | None:
    """(baseline − sae) / (baseline − clean), never clipped; None where nothing is to recover."""
    lost = ce_baseline - ce_clean
    return (ce_baseline - ce_sae) / lost if lost != 0 else None
