"""A language model steered by latents of an SAE: their activations set, and the rest kept.

The SAE's error stays: to the activation x is added (z' − z)·W_dec of the latents in question, as in
Templeton et al. 2024, "Scaling Monosemanticity". A latent clamped to the value that it has changes
nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.atoms import decoder_weights
from sae_repro.errors import StudyError
from sae_repro.readers import hooked
from sae_repro.readers.hooked import point_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Mode = Literal["clamp", "add", "scale", "zero"]
Edit = Callable[[Tensor], Tensor]
"""From activations [N, D] to what is added to them [N, D]."""


@dataclass(frozen=True)
class Intervention:
    """One latent's activation z replaced: clamp, by `value`; add, by z + `value`; scale, by
    z · `value`; zero, by 0, whatever `value` is.

    Values are in the units of the SAE's activations, whose atoms have length 1. Where z' < 0, the
    model is moved against the atom.
    """

    latent: int
    mode: Mode
    value: float = 0.0

    def __post_init__(self) -> None:
        """StudyError for a mode that there is not."""
        if self.mode not in get_args(Mode):
            raise StudyError(f"mode {self.mode!r}: must be one of {', '.join(get_args(Mode))}")

    def applied(self, z_n: Tensor) -> Tensor:
        """z' [N] of z [N]."""
        match self.mode:
            case "clamp":
                return torch.full_like(z_n, self.value)
            case "add":
                return z_n + self.value
            case "scale":
                return z_n * self.value
            case "zero":
                return torch.zeros_like(z_n)


def edit_of(sae: SAE, interventions: Sequence[Intervention]) -> Edit:
    """What `interventions` add to activations; StudyError for none, for a latent that `sae` has
    not, or that is named twice, or of a transcoder."""
    if not interventions:
        raise StudyError("no intervention: give one for each latent to be steered")
    if sae.transcodes:
        raise StudyError(
            "a transcoder can't be steered here: it reads one hook and its atoms are directions at "
            "another; choose an SAE on that hook"
        )
    latents = [intervention.latent for intervention in interventions]
    for latent in latents:
        decoder_weights(sae, latent)
        if latents.count(latent) > 1:
            raise StudyError(f"latent {latent}: named twice; give one intervention for each latent")
    atoms = sae.weights.W_dec[latents]

    def edit(x_nd: Tensor) -> Tensor:
        z = sae.encode(x_nd)[:, latents]
        steered = [i.applied(z_n) for i, z_n in zip(interventions, z.T, strict=True)]
        return (torch.stack(steered, dim=1) - z) @ atoms

    return edit


def behind_first(edit: Edit, norm_limit: float | None = None, *, cached: bool = False) -> Edit:
    """From activations [N, T, D] to those with `edit` added, at the positions of `edited`.

    `cached`: those of one position go on from a cache of keys and values, and have no first.
    """

    def add(x_ntd: Tensor) -> Tensor:
        first = 0 if cached and x_ntd.shape[1] == 1 else 1
        x_md = x_ntd[:, first:].reshape(-1, x_ntd.shape[-1]).float()
        added_md = edit(x_md)
        if norm_limit is not None:
            added_md = torch.where((x_md.norm(dim=1) <= norm_limit)[:, None], added_md, 0.0)
        result = x_ntd.clone()
        result[:, first:] += added_md.reshape(x_ntd[:, first:].shape).to(x_ntd.dtype)
        return result

    return add


@contextmanager
def edited(
    subject: "TransformerBridge",
    hook: str,
    edit: Edit,
    *,
    norm_limit: float | None = None,
    cached: bool = False,
) -> Iterator[None]:
    """Inside, every pass of `subject` has `edit` added at `hook`, at all positions but each row's
    first and those with a norm above `norm_limit`: no SAE was trained on their like.

    `hook` is the model's own name of it. `cached`: passes of one position go on from a cache of
    keys and values, and have no first. StudyError for a hook that the model has not.
    """
    try:
        point = point_of(hook)
    except ValueError as error:
        raise StudyError(str(error)) from None
    if point not in subject.hook_dict:
        raise StudyError(
            f"{hook}: the model has no such hook; its layers are 0 … {subject.cfg.n_layers - 1}"
        )
    add = behind_first(edit, norm_limit, cached=cached)
    hooks: Any = [(point, hooked.edited(hook, add))]
    with subject.hooks(fwd_hooks=hooks):
        yield


@contextmanager
def steered(
    subject: "TransformerBridge",
    sae: SAE,
    hook: str,
    interventions: Sequence[Intervention],
    *,
    norm_limit: float | None = None,
) -> Iterator[None]:
    """Inside, every pass of `subject` has latents of `sae` at `hook` replaced; see `edited`.

    StudyError for no intervention, for a latent that `sae` has not, or that is named twice, and for
    a hook that the model has not.
    """
    with edited(subject, hook, edit_of(sae, interventions), norm_limit=norm_limit):
        yield
