"""The codes of several SAEs on the same held-out tokens, encoded in one pass over them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.partners import Floats, Ints
from sae_repro.evaluate.codes import code_of
from sae_repro.evaluate.held_out import Batch
from sae_repro.evaluate.metrics.references.correlation import correlations_of_columns
from sae_repro.numerics.hashing import uniform_hash
from sae_repro.readers.shards import DOCUMENT, POSITION

TOKENS = 32_768  # of the sample, about: whole documents, chosen by hash
ENCODED = 512  # tokens encoded at once: their code stays in a processor's cache


class Activations:
    """The codes z [n, K] of each SAE on sampled tokens, by document and position."""

    def __init__(
        self,
        saes: Sequence[SAE],
        latents: Sequence[Ints],
        batches: Callable[[], Iterable[Batch]],
        tokens: int,
        seed: int,
    ) -> None:
        """Of `latents` of each SAE; `tokens` is the number of rows that `batches` stream."""
        parts = [[csr_array((0, sae.d_sae))] for sae in saes]
        indices = []
        for x_nd, index in batches():
            chosen = uniform_hash(seed, "consistency", index[:, DOCUMENT]) < TOKENS / tokens
            rows = x_nd[torch.from_numpy(chosen).to(x_nd.device)]
            indices.append(index[chosen])
            for sae, codes in zip(saes, parts, strict=True):
                codes += [_encoded(sae, x) for x in rows.split(ENCODED) if len(x)]
        index = np.concatenate(indices)
        order = np.lexsort((index[:, POSITION], index[:, DOCUMENT]))
        self.codes = [
            csr_array(vstack(codes, format="csr")[order][:, latent])
            for codes, latent in zip(parts, latents, strict=True)
        ]
        self.tokens = len(order)
        self.starts = np.flatnonzero(np.diff(index[order, DOCUMENT])) + 1
        """The first row of each document but the first."""

    def correlations(self, a: int, b: int) -> Floats:
        """Of the activations of the latents of SAEs number `a` and `b`, [K_a, K_b].

        0 for a latent that does not vary on the sampled tokens.
        """
        return np.nan_to_num(correlations_of_columns(self.codes[a], self.codes[b]), nan=0.0)

    def shuffled(self, a: int, b: int, rng: np.random.Generator) -> Floats:
        """The same with the documents of `b` shifted circularly by a random document's start."""
        by = int(rng.choice(self.starts))
        code = self.codes[b]
        shifted = csr_array(vstack([code[by:], code[:by]], format="csr"))
        return np.nan_to_num(correlations_of_columns(self.codes[a], shifted), nan=0.0)


def _encoded(sae: SAE, x_nd: torch.Tensor) -> csr_array:
    """The nonzeros of z [n, K], fp64."""
    with torch.no_grad():
        code = code_of(sae.encode(x_nd), np.zeros((len(x_nd), 3), dtype=np.int32))
    begin = np.searchsorted(code.row, np.arange(len(x_nd) + 1))
    return csr_array(
        (code.value.astype(np.float64), code.latent, begin), shape=(len(x_nd), sae.d_sae)
    )
