"""Records of a step for the trainer: its losses, and its code without the zeros."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.training.steps.gradients import Gradients
from sae_repro.training.steps.workspace import Floats


class StepCode(Protocol):
    """The code z [N, K] ≥ 0 of a step, as far as training asks for it."""

    @property
    def l0(self) -> Tensor | float:
        """Latents that fire, per token."""

    def fired_k(self) -> Tensor:
        """Whether each latent fires in the batch, [K]."""

    def square_k(self) -> Tensor:
        """The mean of z² over the batch, [K]."""

    def smallest(self, norm_k: Tensor | None) -> Tensor:
        """The smallest positive z·‖d‖ (`norm_k`; None: 1), +∞ where nothing fires."""


@dataclass
class Taken:
    """One step: the loss, its named terms (they sum to it), and the code.

    Numbers on the CPU, where by hand; tensors of autograd's graph otherwise.
    """

    loss: Tensor | float
    terms: dict[str, Tensor | float]
    error: Callable[[], Tensor | float]
    """Σ‖x − x̂‖² of the full code: for what is logged, so computed when asked for."""
    code: StepCode
    gradients: Gradients | None = None
    """None: autograd's, to be had from `loss`."""


@dataclass
class DenseCode:
    """A code with its zeros, on any device, which is never waited for."""

    z_nk: Tensor

    @property
    def l0(self) -> Tensor | float:
        """Latents that fire, per token."""
        fired_n = self.z_nk.sign().sum(dim=1, dtype=torch.float32)  # z ≥ 0
        return fired_n.sum(dtype=torch.float64).float() / len(self.z_nk)

    def fired_k(self) -> Tensor:
        """Whether each latent fires in the batch, [K]."""
        return self.z_nk.amax(dim=0) > 0

    def square_k(self) -> Tensor:
        """The mean of z² over the batch, [K]."""
        return self.z_nk.square().mean(0)

    def smallest(self, norm_k: Tensor | None) -> Tensor:
        """The smallest positive z·‖d‖, +∞ where nothing fires."""
        score_nk = self.z_nk if norm_k is None else self.z_nk * norm_k
        return torch.where(score_nk > 0, score_nk, torch.inf).amin()


@dataclass
class HostCode(DenseCode):
    """The same on a CPU, in a fraction of the time: numpy's masks are faster than torch's."""

    known: npt.NDArray[np.bool_] | None = None
    """Where z > 0, or is NaN, [N, K]; None: to be found."""

    @property
    def l0(self) -> Tensor | float:
        """Latents that fire, per token."""
        return int(np.count_nonzero(self._fires)) / len(self.z_nk)

    def fired_k(self) -> Tensor:
        """Whether each latent fires in the batch, [K]."""
        return torch.from_numpy(self._fires.any(axis=0))

    def smallest(self, norm_k: Tensor | None) -> Tensor:
        """The smallest positive z·‖d‖, +∞ where nothing fires."""
        score_nk = (self.z_nk if norm_k is None else self.z_nk * norm_k).numpy()
        return _least(score_nk.reshape(-1).take(np.flatnonzero(score_nk > 0)))

    @cached_property
    def _fires(self) -> npt.NDArray[np.bool_]:
        """Where z > 0, [N, K]: read once, a quarter of the size of z for the rest."""
        if self.known is not None:
            return self.known
        fires: npt.NDArray[np.bool_] = self.z_nk.numpy() > 0
        return fires


def dense_code(z_nk: Tensor) -> DenseCode:
    """The code with its zeros, in the form of its device."""
    return HostCode(z_nk) if z_nk.device.type == "cpu" else DenseCode(z_nk)


@dataclass
class SparseCode:
    """The entries of a code that may fire: latent and value ≥ 0 of each."""

    latent: npt.NDArray[np.int64]
    z: Floats
    tokens: int
    count_k: npt.NDArray[np.integer]
    """Entries of each latent, [K]."""

    def __post_init__(self) -> None:
        fires = self.z > 0
        if not fires.all():
            self.latent, self.z = self.latent[fires], self.z[fires]
            self.count_k = np.bincount(self.latent, minlength=len(self.count_k))

    @property
    def l0(self) -> Tensor | float:
        """Latents that fire, per token."""
        return len(self.latent) / self.tokens

    def fired_k(self) -> Tensor:
        """Whether each latent fires in the batch, [K]."""
        return torch.from_numpy(self.count_k > 0)

    def square_k(self) -> Tensor:
        """The mean of z² over the batch, [K]."""
        square = np.bincount(self.latent, np.square(self.z), minlength=len(self.count_k))
        return torch.from_numpy((square / self.tokens).astype(self.z.dtype))

    def smallest(self, norm_k: Tensor | None) -> Tensor:
        """The smallest positive z·‖d‖, +∞ where nothing fires."""
        score = self.z if norm_k is None else self.z * norm_k.detach().numpy().take(self.latent)
        return _least(score)


def _least(score: Floats) -> Tensor:
    return torch.from_numpy(score.min(initial=np.inf, keepdims=True))[0]
