"""Crosscoders: one code for several hooks, taken apart into the parts of each.

    sae = load("artifacts/train/cross")
    hooks = crosscoder_of(sae)                                        # of a crosscoder
    z = hooks.encode({"blocks.0.hook_resid_post": x0, "blocks.1.hook_resid_post": x1})
    hooks.decode(z)                                                  # {hook: x̂ [N, D_h]}

z(x) = σ(Σ_h (x_h − b_dec,h)·W_enc,h + b_enc) and x̂_h = z·W_dec,h + b_dec,h: an SAE on the vectors
of all hooks side by side (Lindsey et al. 2024, "Sparse Crosscoders for Cross-Layer Features and
Model Diffing"). On disk it is that SAE, and its metadata name the hooks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_repro.autoencoders.saved import SAE
from sae_repro.errors import StudyError

HOOKS, WIDTHS, SCALES = "crosscoder_hooks", "crosscoder_widths", "crosscoder_scales"
"""Keys of the metadata: names, D_h, and s_h / s, by hook."""


@dataclass(frozen=True)
class Crosscoder:
    """A crosscoder by its hooks; `sae` is the same on their vectors side by side."""

    sae: SAE
    hooks: tuple[str, ...]
    widths: tuple[int, ...]
    scales: tuple[float, ...]
    """By which each hook's activations were multiplied in training, beyond a factor of all."""

    def joined(self, x: Mapping[str, Tensor]) -> Tensor:
        """x [N, ΣD_h] of the activations x_h [N, D_h] of each hook; StudyError for a misfit."""
        found = {hook: x[hook].shape[-1] if hook in x else None for hook in self.hooks}
        wanted = dict(zip(self.hooks, self.widths, strict=True))
        if found != wanted or len(x) != len(wanted):
            shapes = {hook: tuple(each.shape) for hook, each in x.items()}
            raise StudyError(f"a crosscoder of {wanted}: got activations {shapes}")
        return torch.cat([x[hook] for hook in self.hooks], dim=-1)

    def encode(self, x: Mapping[str, Tensor]) -> Tensor:
        """z [N, K] of the activations x_h [N, D_h] of each hook."""
        return self.sae.encode(self.joined(x))

    def decode(self, z_nk: Tensor) -> dict[str, Tensor]:
        """x̂_h [N, D_h] of each hook."""
        return self.apart(self.sae.decode(z_nk))

    def apart(self, x_nd: Tensor) -> dict[str, Tensor]:
        """The columns [N, D_h] of `x_nd` [N, ΣD_h] by hook."""
        return dict(zip(self.hooks, torch.split(x_nd, [*self.widths], dim=-1), strict=True))

    def decoder_norms(self) -> dict[str, Tensor]:
        """‖d_k,h‖ [K] fp64 in the units of training, by hook; Σ_h of their squares is 1 (or 0).

        Where hooks have other norms, these make their parts of a latent comparable.
        """
        parts = self.apart(self.sae.weights.W_dec.detach().double())
        return {
            hook: parts[hook].norm(dim=1) * scale
            for hook, scale in zip(self.hooks, self.scales, strict=True)
        }

    def shares(self) -> dict[str, Tensor]:
        """‖d_k,h‖ / Σ_h ‖d_k,h‖ [K], the relative decoder norm of each latent, by hook.

        0 where a latent writes nothing to the hook, 1 where it writes to it alone; NaN for latents
        that write nothing at all.
        """
        norms = self.decoder_norms()
        total = torch.stack([*norms.values()]).sum(0)
        return {hook: norm / total for hook, norm in norms.items()}


def of_hooks(sae: SAE, hooks: Sequence[str], widths: Sequence[int], relative_d: Tensor) -> SAE:
    """`sae` with metadata of its hooks; `relative_d` [ΣD_h] is each entry's scale over all's."""
    first = torch.tensor([0, *widths[:-1]]).cumsum(0)
    metadata = {
        HOOKS: list(hooks),
        WIDTHS: list(widths),
        SCALES: relative_d[first].tolist(),
    }
    return replace(sae, metadata={**(sae.metadata or {}), **metadata})


@torch.no_grad()
def levelled(sae: SAE, levels: Sequence[float]) -> SAE:
    """A crosscoder on activations multiplied by `levels`, a factor per hook; z is as it was.

    Levels that are those of its training give unit rows of W_dec. Any other SAE is returned as is.
    """
    cross = crosscoder_of(sae)
    if cross is None:
        return sae
    weights = sae.weights
    level_d = torch.tensor(levels, dtype=torch.float64).repeat_interleave(
        torch.tensor(cross.widths)
    )
    level_d = level_d.to(weights.W_dec.device)
    scales = [scale / level for scale, level in zip(cross.scales, levels, strict=True)]
    dtype = weights.W_dec.dtype
    moved = replace(
        weights,
        W_enc=(weights.W_enc.double() / level_d[:, None]).to(dtype),
        W_dec=(weights.W_dec.double() * level_d).to(dtype),
        b_dec=(weights.b_dec.double() * level_d).to(dtype),
    )
    return replace(sae, weights=moved, metadata={**(sae.metadata or {}), SCALES: scales})


def crosscoder_of(sae: SAE) -> Crosscoder | None:
    """The parts of a crosscoder; None of an SAE that is none."""
    metadata = sae.metadata or {}
    if HOOKS not in metadata:
        return None
    hooks, widths, scales = (tuple(metadata[key]) for key in (HOOKS, WIDTHS, SCALES))
    if sum(widths) != sae.d_in or not len(hooks) == len(widths) == len(scales):
        raise StudyError(
            f"cfg.json: {HOOKS} {list(hooks)}, {WIDTHS} {list(widths)} and {SCALES} "
            f"{list(scales)} don't fit d_in = {sae.d_in}"
        )
    return Crosscoder(sae, hooks, widths, scales)
