"""Activations from files, [N, D] each: npy, safetensors, parquet or PyTorch's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.errors import StudyError, did_you_mean
from sae_repro.params import ActivationsSource
from sae_repro.pins import PinnedFile, pinned_activations

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Given:
    """Rows [N, D] of several files."""

    parts: tuple[Array, ...]
    """Of each file; npy files are mapped."""

    @property
    def width(self) -> int:
        """D."""
        return int(self.parts[0].shape[1])

    @property
    def rows(self) -> int:
        """N."""
        return sum(len(part) for part in self.parts)

    def take(self, row_n: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Rows [n, D] by their number over all files, fp32."""
        taken = np.empty((len(row_n), self.width), dtype=np.float32)
        begin = 0
        for part in self.parts:
            here = (row_n >= begin) & (row_n < begin + len(part))
            taken[here] = part[row_n[here] - begin]
            begin += len(part)
        return taken


def read_given(source: ActivationsSource, folder: Path) -> Given:
    """The activations that `source` names; `folder` holds params.yaml.

    StudyError where a file is missing or has changed, or holds no matrix of finite numbers as wide
    as the first one's.
    """
    files = pinned_activations(source, folder)[: len(source.files)]
    parts = tuple(_matrix(file, source.tensor) for file in files)
    for file, part in zip(files, parts, strict=True):
        if part.ndim != 2 or part.dtype.kind not in "fiu" or not part.size:
            raise StudyError(
                f"{file.what}: {list(part.shape)} of {part.dtype}; activations are numbers [N, D], "
                "a row each"
            )
        if part.shape[1] != parts[0].shape[1]:
            raise StudyError(
                f"{file.what}: D = {part.shape[1]}, and {files[0].name} has {parts[0].shape[1]}; "
                "all files of a study are equally wide"
            )
    return Given(parts)


def _matrix(file: PinnedFile, tensor: str | None) -> Array:
    suffix = file.path.suffix.lower()
    if suffix not in READERS:
        raise StudyError(
            f"{file.what}: {suffix or 'it'} can't be read; allowed are {', '.join(READERS)}"
        )
    file.check()
    try:
        return READERS[suffix](file, tensor)
    except StudyError:
        raise
    except Exception as error:  # of four libraries' readers, for what a damaged file holds
        message = str(error).split("\n")[0]
        raise StudyError(f"{file.what}: can't be read ({message})") from None


def _npy(file: PinnedFile, tensor: str | None) -> Array:
    return np.asarray(np.load(file.path, mmap_mode="r", allow_pickle=False))


def _safetensors(file: PinnedFile, tensor: str | None) -> Array:
    from safetensors.torch import load_file

    return _numbers(_chosen(file, load_file(file.path), tensor))


def _pytorch(file: PinnedFile, tensor: str | None) -> Array:
    import torch

    loaded: Any = torch.load(file.path, map_location="cpu", weights_only=True)
    if isinstance(loaded, Mapping):
        loaded = _chosen(file, loaded, tensor)
    if isinstance(loaded, list | tuple):
        loaded = torch.stack([torch.as_tensor(row) for row in loaded])
    if not isinstance(loaded, torch.Tensor):
        raise StudyError(f"{file.what}: holds {type(loaded).__name__}, no tensor")
    return _numbers(loaded)


def _parquet(file: PinnedFile, tensor: str | None) -> Array:
    import pandas as pd

    frame = pd.read_parquet(file.path)
    if len(frame.columns) == 1 and frame.dtypes.iloc[0].kind == "O":
        return np.stack([np.asarray(row) for row in frame.iloc[:, 0]])
    return frame.to_numpy()


def _numbers(tensor: Any) -> Array:
    array: Array = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return array


def _chosen(file: PinnedFile, tensors: Mapping[str, Any], name: str | None) -> Any:
    """The tensor `name`, or the only one."""
    if name is None and len(tensors) == 1:
        return next(iter(tensors.values()))
    if name is None or name not in tensors:
        near = did_you_mean(name or "", tensors)
        raise StudyError(
            f"{file.what}: has {', '.join(map(str, tensors))}; set corpus.source.tensor{near}"
        )
    return tensors[name]


READERS: Mapping[str, Callable[[PinnedFile, str | None], Array]] = {
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".pt": _pytorch,
    ".pth": _pytorch,
}
"""By the end of a file's name, in lower case."""
