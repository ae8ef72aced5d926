"""The text around validation tokens as the language model read it, to run the model on again."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from sae_repro.autoencoders import SAE
from sae_repro.errors import StudyError
from sae_repro.params import blocks_to_run
from sae_repro.readers.hooked import point_of, vectors
from sae_repro.readers.shards import DOCUMENT, POSITION, ActivationStore, row_key

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Ints = npt.NDArray[np.int64]
Activate = Callable[[Ints, Ints], npt.NDArray[np.float64]]
"""From rows of tokens [n, T] and a latent each [n] to its activation a on the last token [n]."""

ROWS = 256  # of a forward pass


@dataclass(frozen=True)
class Passages:
    """The rows that the language model read: tokens [W, T], and which of them are real."""

    tokens: Ints
    mask: npt.NDArray[np.bool_]
    length: Ints
    """[W]: tokens in the row, BOS included."""
    document: Ints
    """[W]."""
    first: int
    """Column of a row's first document token: 1 behind a BOS, else 0."""
    index: npt.NDArray[np.int32]
    """(document, position, token) [N, 3] of the real tokens, row by row."""

    @classmethod
    def load(cls, store: ActivationStore) -> "Passages":
        """Of the validation split; StudyError where rows and activations don't fit each other."""
        folder = store.folder / "windows"
        tokens, mask, length, document = (
            np.load(folder / f"{name}.npy", allow_pickle=False)
            for name in ("tokens", "mask", "length", "document")
        )
        index = store.index("validation").whole()
        if len(index) != mask.sum():
            raise StudyError(
                f"{folder}: {mask.sum()} real tokens, but {len(index)} validation activations; "
                "run `dvc repro extract`"
            )
        return cls(
            tokens=tokens.astype(np.int64),
            mask=mask,
            length=length[:, 0].astype(np.int64),
            document=document[:, 0].astype(np.int64),
            first=int(store.manifest["prepend_bos"] is not False),
            index=index,
        )

    def find(self, document: npt.NDArray[Any], position: npt.NDArray[Any]) -> tuple[Ints, Ints]:
        """(row, column) of the real tokens at these places."""
        key, row, column = self._places
        at = np.searchsorted(key, row_key(document, position))
        return row[at], column[at]

    @cached_property
    def _places(self) -> tuple[Ints, Ints, Ints]:
        """(key of document and position, row, column) of the real tokens, by key."""
        row, column = np.nonzero(self.mask)
        key = row_key(self.index[:, DOCUMENT], self.index[:, POSITION])
        order = np.argsort(key, kind="stable")
        return key[order], row[order], column[order]

    def suffix(self, row: Ints, column: Ints, length: int) -> Ints:
        """The `length` tokens [n, length] that end at each (row, column)."""
        text: Ints = self.tokens[row[:, None], column[:, None] + np.arange(1 - length, 1)]
        return text

    def behind_bos(self, tokens: Ints) -> Ints:
        """`tokens` [n, T] as rows of their own: with the BOS that all rows start with, if any."""
        bos = np.broadcast_to(self.tokens[0, : self.first], (len(tokens), self.first))
        return np.concatenate([bos, tokens], axis=1)


def last_activation(subject: "TransformerBridge", sae: SAE, hook: str, device: str) -> Activate:
    """The function from texts to a latent's activation a = z·‖d_k‖ on each one's last token."""
    norm_k = sae.weights.W_dec.double().norm(dim=1)

    def activate(tokens_nt: Ints, latent_n: Ints) -> npt.NDArray[np.float64]:
        activation_n = np.empty(len(tokens_nt))
        for start in range(0, len(tokens_nt), ROWS):
            part = slice(start, start + ROWS)
            with torch.no_grad():
                cache: Any
                _, cache = subject.run_with_cache(
                    torch.from_numpy(tokens_nt[part]).to(device),
                    names_filter=[point_of(hook)],
                    stop_at_layer=blocks_to_run([hook]),
                )
                z_nk = sae.encode(vectors(hook, cache[point_of(hook)])[:, -1].float())
            latent = torch.from_numpy(latent_n[part]).to(device)
            z_n = z_nk.gather(1, latent[:, None])[:, 0].double()
            activation_n[part] = (z_n * norm_k[latent]).cpu().numpy()
        return activation_n

    return activate
