"""Tensors that outlive a step: fresh memory costs more than a pass over it."""

import torch
from torch import Tensor


class Workspace:
    """Named tensors without a value that means anything, made when first asked for."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def empty(self, name: str, *shape: int, like: Tensor) -> Tensor:
        """The tensor `name` of this shape, and of the dtype of `like`; its content is arbitrary."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype != like.dtype:
            tensor = self._tensors[name] = torch.empty(shape, dtype=like.dtype)
        return tensor
