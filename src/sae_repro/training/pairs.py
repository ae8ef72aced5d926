"""The rows that a transcoder is trained on: inputs x and targets y of the same tokens."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.errors import StudyError
from sae_repro.params import Cell
from sae_repro.readers.shards import ActivationStore, Shards
from sae_repro.training.finishing import centre_of, scale_of


@dataclass(frozen=True)
class Pairs:
    """Rows [N, D + D_out] of x and y side by side, read as `Shards` are."""

    inputs: Shards
    targets: Shards
    d_in: int
    shift: Tensor
    """What training subtracts from a row, and by what it multiplies the rest, [D + D_out]."""
    factor: Tensor

    @classmethod
    def of(cls, cell: Cell, store: ActivationStore, hook: str, device: torch.device) -> "Pairs":
        """Of a transcoder that reads `hook`; StudyError where rows of the hooks aren't the same."""
        target = cell.target_hook
        assert target is not None
        inputs, targets = (store.activations(name, "train") for name in (hook, target))
        if [e["rows"] for e in inputs.entries] != [e["rows"] for e in targets.entries]:
            raise StudyError(
                f"target_hook = {target}: its shards have other numbers of rows than those of "
                f"{hook}; extract both hooks together"
            )
        zeros = torch.zeros(store.d_in(target))
        shift = torch.cat([centre_of(store, hook).float(), zeros])
        factor = torch.cat(
            [
                torch.full((store.d_in(name),), scale_of(cell, store, name))
                for name in (hook, target)
            ]
        )
        return cls(inputs, targets, store.d_in(hook), shift.to(device), factor.to(device))

    @property
    def rows(self) -> int:
        """Rows of all shards together."""
        return self.inputs.rows

    @property
    def entries(self) -> tuple[dict[str, Any], ...]:
        """The shards; those of both hooks have the same rows."""
        return self.inputs.entries

    @property
    def rounds(self) -> tuple[int, ...]:
        """Shards of each round of `extract.buffer`, in order."""
        return self.inputs.rounds

    def load(self, number: int) -> npt.NDArray[Any]:
        """Shard `number` of both, in memory, their checksums verified."""
        return np.concatenate([self.inputs.load(number), self.targets.load(number)], axis=1)

    def scaled(self, x_nd: Tensor) -> Tensor:
        """Rows as training sees them: s·(x − c) and s'·y."""
        return (x_nd - self.shift).mul_(self.factor)

    def targets_of(self, x_nd: Tensor) -> Tensor:
        """The half of rows that is reconstructed, [N, D_out]."""
        return x_nd[:, self.d_in :]
