"""The code of every validation token, encoded once: nonzeros on disk, read as often as needed.

What comes after the first pass needs no encoder, no activations and no [N, K]: memory is a batch.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders.encoder import Encoder, nonzeros
from sae_repro.autoencoders.selection import row_starts
from sae_repro.readers.shards import RowFile

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Code:
    """The nonzeros of z [n, K] of a batch of n tokens, by row, then by latent."""

    index: npt.NDArray[np.int32]
    """[n, 3]: document, position, token."""
    row: npt.NDArray[np.int64]
    """[m], 0 … n − 1; so are the next two."""
    latent: npt.NDArray[np.int64]
    value: Array
    """z > 0, or a = z·‖d_k‖ where `scaled`."""


DENSE = 0.25  # fraction of nonzeros from which on a product of all of z is faster

Codes = Callable[[], Iterable[Code]]
"""Each call streams the codes of all tokens, in any batches and order."""


def code_of(z_nk: Tensor, index: npt.NDArray[np.int32]) -> Code:
    """The nonzeros of z [n, K] ≥ 0 of the tokens in `index`."""
    # NaN too: what an SAE that has diverged gives is to be seen
    return _code(*nonzeros(z_nk), z_nk.shape[1], index)


def _code(flat: Array, value: Array, k: int, index: npt.NDArray[np.int32]) -> Code:
    row = np.arange(len(index)).repeat(np.diff(row_starts(flat, len(index), k)))
    return Code(index, row, flat - row * k, value)


def reconstructed(
    encoder: Encoder, x_nd: Tensor, index: npt.NDArray[np.int32]
) -> tuple[Code, Tensor]:
    """(the code, x̂ [n, D]) of activations x [n, D] of the tokens in `index`."""
    sae, n = encoder.sae, len(x_nd)
    flat, value = encoder(x_nd)
    code = _code(flat, value, sae.d_sae, index)
    with torch.no_grad():
        if len(value) > DENSE * n * sae.d_sae:
            z_nk = x_nd.new_zeros(n, sae.d_sae)
            z_nk.view(-1)[torch.from_numpy(flat).to(x_nd.device)] = torch.from_numpy(value).to(
                x_nd.device
            )
            return code, sae.with_skip(sae.decode(z_nk), x_nd)
        begin_n = np.searchsorted(code.row, np.arange(n))
        parts = (code.value, code.latent, begin_n)
        x_hat = sae.decode_nonzeros(*(torch.from_numpy(p).to(x_nd.device) for p in parts))
        return code, sae.with_skip(x_hat, x_nd)


def scaled(codes: Codes, norm_k: Array) -> Codes:
    """The canonical activations a = z·‖d_k‖, fp32: the same however the decoder is scaled."""
    norm_k = np.asarray(norm_k, dtype=np.float32)

    def stream() -> Iterator[Code]:
        for code in codes():
            yield replace(code, value=code.value.astype(np.float32) * norm_k[code.latent])

    return stream


class CodeFile:
    """Codes on disk: appended batch by batch, then streamed in the same batches, values in fp32."""

    def __init__(self, folder: Path) -> None:
        self._paths = {name: folder / f"{name}.npy" for name in ("index", "row", "latent", "value")}
        widths = {"index": 3, "row": 1, "latent": 1, "value": 1}
        self._files = {
            name: RowFile(path, widths[name], np.float32 if name == "value" else np.int32)
            for name, path in self._paths.items()
        }
        self._ends: list[tuple[int, int]] = [(0, 0)]

    def append(self, code: Code) -> None:
        """Append a batch."""
        for name, file in self._files.items():
            part = getattr(code, name)
            file.append(part if name == "index" else part[:, None])
        self._ends.append((self._files["index"].rows, self._files["row"].rows))

    def close(self) -> None:
        """Complete the files; before this nothing can be read."""
        for name, file in self._files.items():
            file.close(flat=name != "index")

    def __call__(self) -> Iterator[Code]:
        """All batches, in order."""
        read = {name: np.load(path, mmap_mode="r") for name, path in self._paths.items()}
        for i in range(1, len(self._ends)):
            (first, begin), (last, end) = self._ends[i - 1], self._ends[i]
            yield Code(
                index=np.array(read["index"][first:last]),
                row=read["row"][begin:end].astype(np.int64),
                latent=read["latent"][begin:end].astype(np.int64),
                value=np.array(read["value"][begin:end]),
            )
