"""Tensors in the files of other libraries, read without running anything, and checked."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae_repro.errors import StudyError
from sae_repro.hub import one_line

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; StudyError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: damaged ({one_line(error)}); fetch it again") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by torch.save; StudyError where it holds anything else."""
    try:
        # a pickle can run any code on loading; this reads tensors and nothing else
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises what it happens to hit
        # the message would tell how to run the code after all
        raise StudyError(
            f"{path}: damaged, or it holds more than tensors, which is never run "
            f"({type(error).__name__}); save it as torch.save(ae.state_dict(), path)"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise StudyError(f"{path}: no state dict; save it as torch.save(ae.state_dict(), path)")
    return state


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of a numpy archive; StudyError where it is damaged or holds objects."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # a damaged archive raises what its reader happens to hit
        raise StudyError(
            f"{path}: damaged, or it holds more than arrays of numbers ({one_line(error)}); fetch "
            "it again"
        ) from None


def check_floats(path: object, tensors: Mapping[str, Tensor]) -> None:
    """StudyError where a tensor is none of floats with 16, 32 or 64 bits."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise StudyError(
                f"{path}: {name} is of {tensor.dtype}; read are "
                f"{', '.join(str(dtype).removeprefix('torch.') for dtype in FLOATS)}: save it as "
                "one of them, quantised weights undone"
            )


def check_finite(path: object, tensors: Mapping[str, Tensor]) -> None:
    """StudyError where a value is NaN, infinite, or too large for fp32."""
    for name, tensor in tensors.items():
        bad = ~torch.isfinite(tensor.float())
        if bad.any():
            first = bad.nonzero()[0].tolist()
            raise StudyError(
                f"{path}: {name} has {int(bad.sum())} of {bad.numel()} values that are NaN, "
                f"infinite or too large for float32, the first at {first}; the file is damaged or "
                "its training diverged: fetch it again, or an earlier checkpoint"
            )
