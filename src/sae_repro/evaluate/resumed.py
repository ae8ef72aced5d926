"""Forward passes of a language model that start behind some of its blocks, from what these gave.

An SAE changes nothing ahead of its hook: all SAEs on a hook share the blocks up to it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sae_repro.params import blocks_ahead, parts_of
from sae_repro.readers.hooked import edited, point_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BETWEEN_BLOCKS = ("hook_resid_pre", "hook_in", "hook_resid_post", "hook_out")

Edit = Callable[[Tensor], Tensor]
"""From the activations [n, T, D] at a hook to what takes their place."""


@dataclass(frozen=True)
class Resumable:
    """An untouched pass over one batch of tokens [n, T], kept where others can resume."""

    subject: "TransformerBridge"
    tokens: Tensor
    hook: str
    entering: Tensor | None
    """What the last block ahead of the hook gave, [n, T, D]; None: nothing can be spared."""
    leaving: Tensor | None
    """What the last block gave."""

    @classmethod
    def of(cls, subject: "TransformerBridge", tokens: Tensor, hook: str) -> "Resumable":
        """Run `subject` on `tokens`."""
        ahead = blocks_ahead(hook, len(subject.blocks))
        with _recorded(subject, {ahead, len(subject.blocks)} - {0}) as kept:
            logits = _logits(subject(tokens))
        resumable = cls(subject, tokens, hook, kept.get(ahead), kept.get(len(subject.blocks)))
        return resumable if resumable._gives(logits) else cls(subject, tokens, hook, None, None)

    def _gives(self, logits: Tensor) -> bool:
        """Whether passes that resume give what a whole pass gives, to the bit."""
        try:
            same = [self.untouched(), self.replaced(lambda activation: activation)]
        except Exception:  # blocks that read more of the ones ahead than the residual stream
            return False
        return all(torch.equal(one, logits) for one in same)

    def untouched(self) -> Tensor:
        """The logits [n, T, V]."""
        if self.leaving is None:
            return _logits(self.subject(self.tokens))
        with _behind(self.subject, len(self.subject.blocks), self.leaving):
            return _logits(self.subject(self.tokens))

    def replaced(self, edit: Edit) -> Tensor:
        """The logits [n, T, V] with `edit` of the activations at the hook in their place."""
        if self.entering is None:
            return self._hooked(edit)
        between_blocks = parts_of(self.hook).place in BETWEEN_BLOCKS
        entering = edit(self.entering) if between_blocks else self.entering
        with _behind(self.subject, blocks_ahead(self.hook, len(self.subject.blocks)), entering):
            return _logits(self.subject(self.tokens)) if between_blocks else self._hooked(edit)

    def _hooked(self, edit: Edit) -> Tensor:
        hooks: Any = [(point_of(self.hook), edited(self.hook, edit))]
        return _logits(self.subject.run_with_hooks(self.tokens, fwd_hooks=hooks))


def _logits(output: Any) -> Tensor:
    logits: Tensor = output
    return logits


@contextmanager
def _recorded(subject: "TransformerBridge", after: set[int]) -> Iterator[dict[int, Tensor]]:
    """Inside, what the blocks gave is kept by how many there were up to there."""
    kept: dict[int, Tensor] = {}

    def keep(number: int) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            # a block that hands on more than the residual stream can't be left out
            if isinstance(output, Tensor):
                kept[number] = output

        return hook

    handles = [subject.blocks[n - 1].register_forward_hook(keep(n)) for n in after]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _behind(subject: "TransformerBridge", n: int, hidden: Tensor) -> Iterator[None]:
    """Inside, the first `n` blocks compute nothing, and give `hidden`."""

    def given(*_: Any, **__: Any) -> Tensor:
        return hidden

    blocks = subject.blocks[:n]
    for block in blocks:
        vars(block)["forward"] = given  # a bridge hands on what is set on it
    try:
        yield
    finally:
        for block in blocks:
            del vars(block)["forward"]
