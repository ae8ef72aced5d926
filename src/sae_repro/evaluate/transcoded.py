"""A transcoder in the language model: its prediction in place of the activations at its target."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.encoder import Encoder
from sae_repro.evaluate.codes import reconstructed
from sae_repro.evaluate.fidelity import Replace
from sae_repro.evaluate.held_out import Batch


def prediction(sae: SAE, inputs: Iterable[Batch]) -> Replace:
    """The replacement at the target hook, to be called on the real tokens in their order.

    `inputs` stream the activations that `sae` reads, of the same tokens from the first on. They are
    those of the untouched model: a replacement behind them changes none of them.
    """
    encoder, batches, read = Encoder(sae), iter(inputs), torch.empty(0)

    def y_hat(y_md: Tensor) -> Tensor:
        nonlocal read
        while len(read) < len(y_md):
            x_nd = next(batches)[0]
            read = torch.cat([read, x_nd]) if len(read) else x_nd
        x_md, read = read[: len(y_md)], read[len(y_md) :]
        return reconstructed(encoder, x_md, np.empty((len(x_md), 3), dtype=np.int32))[1]

    return y_hat
