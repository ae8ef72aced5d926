"""The logit lens of atoms: the tokens that the subject's own unembedding reads in a direction."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sae_repro.params import in_stream, on_random_weights
from sae_repro.params.joint import is_joint
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.subject import load_subject

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

TOKENS = 8
BLOCK = 1024  # atoms read at once

Tokens = list[list[str]]
"""Per latent, the tokens' texts."""


class Lens:
    """The subject's final normalisation and unembedding, applied to atoms."""

    def __init__(self, subject: "TransformerBridge | None", corpus: TokenDocuments) -> None:
        """Without a subject, no atom fits it."""
        self._norm: Any = subject and subject.ln_final
        self._unembedding_dv: Tensor = subject.W_U.detach().float() if subject else torch.empty(0)
        self._backend = corpus.tokenizer().backend_tokenizer

    @classmethod
    def read(cls, folder: Path, corpus: TokenDocuments) -> "Lens":
        """That of the model in artifacts/subject."""
        return cls(load_subject(folder), corpus)

    def fits(self, hook: str, width: int) -> bool:
        """Whether atoms of this width at `hook` are directions of the residual stream of this very
        model."""
        if is_joint(hook):
            return False  # directions of several hooks at once
        stream = in_stream(hook) and width == len(self._unembedding_dv)
        return stream and not on_random_weights(hook)

    @torch.no_grad()
    def tokens(self, atoms_kd: Tensor) -> tuple[Tokens, Tokens]:
        """(promoted, suppressed): per latent the tokens of the largest and the smallest logits.

        Of the atom through the final normalisation, its own bias left out: logits up to a factor
        per latent, which changes no order.
        """
        vocabulary = min(self._unembedding_dv.shape[1], self._backend.get_vocab_size())
        origin = self._normalised(torch.zeros_like(atoms_kd[:1]))
        up: Tokens = []
        down: Tokens = []
        for start in range(0, len(atoms_kd), BLOCK):
            direction_bd = self._normalised(atoms_kd[start : start + BLOCK]) - origin
            logits_bv = direction_bd @ self._unembedding_dv[:, :vocabulary]
            for signed_bv, lists in ((logits_bv, up), (-logits_bv, down)):
                order = torch.sort(signed_bv, dim=1, descending=True, stable=True).indices
                lists.extend(self.texts(ids) for ids in order[:, :TOKENS].tolist())
        return up, down

    def _normalised(self, x_nd: Tensor) -> Tensor:
        result: Tensor = self._norm(x_nd[None])[0]
        return result

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token id."""
        texts: list[str] = self._backend.decode_batch([[i] for i in ids], skip_special_tokens=False)
        return texts
