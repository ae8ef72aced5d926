"""A state on disk: values by name, as JSON, and NumPy arrays, in one safetensors file.

Its header holds the JSON, in which arrays stand by number, and a hash over JSON and arrays.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.files import replacing

State = dict[str, Any]
"""What an object needs to go on, by name: JSON values, arrays, and objects and lists of both."""

_ARRAY = "array:"  # before an array's number


def write_state(path: Path, state: State) -> None:
    """Replace the state `path`."""
    from safetensors.numpy import save_file

    arrays: dict[str, npt.NDArray[Any]] = {}
    record = json.dumps(_numbered(state, arrays))
    with replacing(path) as temporary:
        save_file(arrays, temporary, {"record": record, "sha256": _sha256(record, arrays)})


def read_state(path: Path) -> State:
    """The state that was written; ValueError where the file is not as it was."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: {error}") from None
    record = header.get("record", "")
    if header.get("sha256") != _sha256(record, arrays):
        raise ValueError(f"{path}: damaged")
    state: State = _whole(json.loads(record), arrays)
    return state


def _numbered(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """`value` with the numbers of its arrays, which go to `arrays`."""
    if isinstance(value, np.ndarray):
        name = f"{_ARRAY}{len(arrays)}"
        arrays[name] = np.ascontiguousarray(value)
        return name
    if isinstance(value, dict):
        return {name: _numbered(part, arrays) for name, part in value.items()}
    if isinstance(value, list):
        return [_numbered(part, arrays) for part in value]
    return value


def _whole(value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """The reverse of `_numbered`."""
    if isinstance(value, str) and value.startswith(_ARRAY):
        return arrays[value]
    if isinstance(value, dict):
        return {name: _whole(part, arrays) for name, part in value.items()}
    if isinstance(value, list):
        return [_whole(part, arrays) for part in value]
    return value


def _sha256(record: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over the record, and each array's name, type, shape and bytes."""
    sha256 = hashlib.sha256(record.encode())
    for name, array in sorted(arrays.items()):
        sha256.update(f"\n{name} {array.dtype} {list(array.shape)}\n".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()
