"""A world's activations in memory, read as those of artifacts/extract are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.readers.shards import ActivationStore, Shards

Floats = npt.NDArray[np.float32]

HOOK = "control"
CHUNK = 1 << 14  # rows squared at once: their fp64 squares stay in the cache


@dataclass(frozen=True, kw_only=True)
class HeldShards(Shards):
    """One split, whole, as its only shard; nothing on a disk that could be damaged."""

    rows_nd: Floats

    def load(self, number: int) -> npt.NDArray[Any]:
        """The rows [N, D], read-only; `number` is 0."""
        return self.rows_nd


class HeldStore(ActivationStore):
    """Activations [N, D] of one hook, `HOOK`, in the splits train and calibration."""

    def __init__(self, train_nd: Floats, calibration_nd: Floats) -> None:
        norm_n = norms(train_nd)
        self.folder = Path()
        self._splits = {"train": _held(train_nd), "calibration": _held(calibration_nd)}
        self.manifest = {
            "hooks": {
                HOOK: {
                    "d_in": train_nd.shape[1],
                    "rms": float(np.sqrt(np.square(norm_n).mean())),
                    "median_norm": float(np.median(norm_n)),
                }
            }
        }

    def activations(self, hook: str, split: str) -> Shards:
        """The activations [N, D] in `split`."""
        return self._splits[split]


def norms(x_nd: Floats) -> npt.NDArray[np.float64]:
    """‖x‖ of each row [N], fp64."""
    norm_n = np.empty(len(x_nd))
    for start in range(0, len(x_nd), CHUNK):
        rows = slice(start, start + CHUNK)
        np.square(x_nd[rows], dtype=np.float64).sum(1, out=norm_n[rows])
    return np.sqrt(norm_n, out=norm_n)


def _held(x_nd: Floats) -> HeldShards:
    view = x_nd.view()
    view.setflags(write=False)
    return HeldShards(Path(), ({"rows": len(x_nd)},), rows_nd=view)
