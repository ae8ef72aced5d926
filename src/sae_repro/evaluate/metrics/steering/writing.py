"""Text written behind many beginnings at once, each pass a token: keys and values are kept."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.steering import drawn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Ints = npt.NDArray[np.int64]
Read = Callable[[Tensor], Tensor]
"""From the token ids that come next [N, l] to the logits [N, V] behind them; the text is kept."""

TOGETHER = 64
"""Beginnings that always pass together. A product rounds a row by its place among the others and by
their number, so that both are fixed: a text depends on its own beginning and place alone."""


def reading(subject: "TransformerBridge") -> Read:
    """A model that is at the start of its texts."""
    from transformers import DynamicCache

    cache = DynamicCache()

    def read(tokens_nl: Tensor) -> Tensor:
        output: Any = subject(tokens_nl, past_key_values=cache, use_cache=True)
        logits_nv: Tensor = output[:, -1]
        return logits_nv

    return read


def guided(plain: Read, prompted: Read, words: Sequence[int], weight: float) -> Read:
    """Logits (1 − w)·l + w·l′, l′ those with the token ids `words` behind each text's first token.

    0 leaves the model alone, 1 gives it the prompt, more goes beyond it. After Sanchez et al. 2023,
    "Stay on topic with classifier-free guidance" (arXiv 2306.17806).
    """
    begun = False

    def read(tokens_nl: Tensor) -> Tensor:
        nonlocal begun
        behind = tokens_nl if begun else with_words(tokens_nl, words)
        begun = True
        logits_nv = plain(tokens_nl)
        return logits_nv + weight * (prompted(behind) - logits_nv)

    return read


def with_words(tokens_nl: Tensor, words: Sequence[int]) -> Tensor:
    """The token ids `words` behind the first token of each row."""
    given = torch.tensor(words, dtype=tokens_nl.dtype, device=tokens_nl.device)
    return torch.cat([tokens_nl[:, :1], given.expand(len(tokens_nl), -1), tokens_nl[:, 1:]], dim=1)


def written(start: Callable[[], Read], prompts_nl: Tensor, uniform_nt: npt.NDArray[Any]) -> Ints:
    """The tokens [N, T] behind each of the beginnings [N, L], drawn by the numbers in [0, 1)."""
    parts = []
    for begin in range(0, len(prompts_nl), TOGETHER):
        group = slice(begin, begin + TOGETHER)
        prompts, uniform = prompts_nl[group], uniform_nt[group]
        missing = TOGETHER - len(prompts)
        filled = torch.cat([prompts, prompts[-1:].expand(missing, -1)])
        numbers = np.concatenate([uniform, uniform[-1:].repeat(missing, axis=0)])
        read, next_nl, tokens = start(), filled, []
        for step in range(uniform.shape[1]):
            with torch.no_grad():
                next_nl = drawn(read(next_nl), numbers[:, step])[:, None]
            tokens.append(next_nl)
        parts.append(torch.cat(tokens, dim=1)[: len(prompts)])
    result: Ints = torch.cat(parts).cpu().numpy()
    return result
