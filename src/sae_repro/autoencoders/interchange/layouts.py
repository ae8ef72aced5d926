"""The classes of other libraries: their names for our tensors, and the SAEs they can hold.

A class either subtracts b_dec from its input or it doesn't. Both say the same,
u = (x − b_dec)·W_enc + b = x·W_enc + (b − b_dec·W_enc), so that changing over costs only a change
of the encoder's biases: see `with_input_bias`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_repro.autoencoders.interchange.tensors import check_finite, check_floats
from sae_repro.autoencoders.saved import SAE
from sae_repro.autoencoders.weights import Weights
from sae_repro.errors import StudyError
from sae_repro.params.axes import ARCHITECTURES

UNIT = 1e-4  # how far a row's norm may be from 1 to count as unit


@dataclass(frozen=True)
class Layout:
    """A foreign class: its name for each of our tensors, and what it does with them.

    A name that ends with `.weight` is a linear layer's: stored the other way round than ours.
    """

    architecture: str
    names: Mapping[str, str]
    apply_b_dec_to_input: bool = True
    ignored: frozenset[str] = frozenset()
    """Tensors that don't matter at inference."""

    @property
    def reads_k(self) -> bool:
        """Whether encoding needs k, which its configuration states."""
        return ARCHITECTURES[self.architecture].reads_k


def _own(*names: str, **renamed: str) -> dict[str, str]:
    return {name: name for name in ("W_enc", "W_dec", "b_dec", *names)} | renamed


def _linear(**renamed: str) -> dict[str, str]:
    return {"W_enc": "encoder.weight", "W_dec": "decoder.weight", **renamed}


SAELENS = {
    **{
        name: Layout(name, _own(*row.extra, b_enc=row.b_enc_name))
        for name, row in ARCHITECTURES.items()
        if row.in_saelens
    },
    # checkpoints of training; what SAELens saves for inference is a jumprelu
    "batchtopk": Layout("jumprelu", _own("b_enc", threshold="topk_threshold")),
    "matryoshka_batchtopk": Layout("jumprelu", _own("b_enc", threshold="topk_threshold")),
}
"""By `architecture` in cfg.json, which also says what is subtracted from x."""

DICTIONARY_LEARNING = {
    "AutoEncoder": Layout("standard", _linear(b_enc="encoder.bias", b_dec="bias")),
    "GatedAutoEncoder": Layout(
        "gated",
        _linear(b_enc="gate_bias", b_mag="mag_bias", r_mag="r_mag", b_dec="decoder_bias"),
    ),
    "JumpReluAutoEncoder": Layout(
        "jumprelu", _own("b_enc", "threshold"), apply_b_dec_to_input=False
    ),
    "AutoEncoderTopK": Layout(
        "topk",
        _linear(b_enc="encoder.bias", b_dec="b_dec"),
        ignored=frozenset({"k", "threshold"}),
    ),
    "AutoEncoderNew": Layout(
        "standard",
        _linear(b_enc="encoder.bias", b_dec="decoder.bias"),
        apply_b_dec_to_input=False,
    ),
    "BatchTopKSAE": Layout(
        "jumprelu",
        _linear(b_enc="encoder.bias", b_dec="b_dec", threshold="threshold"),
        ignored=frozenset({"k"}),
    ),
    "MatryoshkaBatchTopKSAE": Layout(
        "jumprelu", _own("b_enc", "threshold"), ignored=frozenset({"k", "group_sizes"})
    ),
}
"""By `trainer.dict_class` in config.json; the first of an architecture is the one written."""

SPARSIFY = Layout(
    "topk",
    {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"},
)


GEMMA_SCOPE = Layout("jumprelu", _own("b_enc", "threshold"), apply_b_dec_to_input=False)


def to_theirs(sae: SAE, layout: Layout) -> dict[str, Tensor]:
    """The tensors of `sae` as the class of `layout` stores them; it must be of its architecture."""
    assert sae.architecture == layout.architecture
    tensors = with_input_bias(sae, layout.apply_b_dec_to_input).weights.named()
    named = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        their_name = layout.names[name]
        named[their_name] = (tensor.T if _turned(their_name) else tensor).contiguous()
    return named


def to_ours(path: object, tensors: Mapping[str, Tensor], layout: Layout) -> Weights:
    """Weights in the precision and with the row norms that were stored; a scalar threshold is [K].

    StudyError where tensors are missing, too many (they would change what the SAE does), not
    finite, no floats, or don't fit each other. `path` names the file.
    """
    expected = set(layout.names.values())
    missing = sorted(expected - set(tensors))
    extra = sorted(set(tensors) - expected - layout.ignored)
    if missing or extra:
        raise StudyError(
            f"{path}: not a {layout.architecture} SAE of the format that its configuration names: "
            + "; ".join(
                f"{problem} {', '.join(names)}"
                for problem, names in (("it lacks", missing), ("it has unsupported", extra))
                if names
            )
        )
    stored = {name: tensors[stored_name] for name, stored_name in layout.names.items()}
    if "threshold" in stored and stored["threshold"].numel() == 1:
        stored["threshold"] = stored["threshold"].reshape(1).expand(stored["b_enc"].numel())
    _check_shapes(path, stored, layout)
    check_floats(path, {layout.names[name]: tensor for name, tensor in stored.items()})
    check_finite(path, {n: t for n, t in tensors.items() if t.is_floating_point()})
    return Weights(**{n: t.T if _turned(layout.names[n]) else t for n, t in stored.items()})


def _turned(their_name: str) -> bool:
    return their_name.endswith(".weight")


def _check_shapes(path: object, stored: Mapping[str, Tensor], layout: Layout) -> None:
    """StudyError with each tensor whose shape is not that of D = len(b_dec), K = len(b_enc)."""
    d_in, d_sae = stored["b_dec"].numel(), stored["b_enc"].numel()
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    wrong = []
    for name, tensor in stored.items():
        expected, found = shapes.get(name, (d_sae,)), tuple(tensor.shape)
        if _turned(layout.names[name]):
            expected = expected[::-1]
        if found != expected or 0 in found:
            turned = ", which is the other way round" if found == expected[::-1] else ""
            wrong.append(f"{layout.names[name]} {list(found)} for {list(expected)}{turned}")
    if wrong:
        raise StudyError(
            f"{path}: the shapes don't fit each other: {'; '.join(wrong)}, as D = {d_in} and K = "
            f"{d_sae} of the biases ask; the file is damaged or of another library: fetch it again"
        )


def with_input_bias(sae: SAE, apply: bool) -> SAE:
    """`sae` with u taken from x − b_dec (`apply`) or from x: z and x̂ stay, encoder biases move."""
    if sae.apply_b_dec_to_input == apply:
        return sae
    w = sae.weights
    shift_k = w.b_dec.double() @ w.W_enc.double()
    if not apply:
        shift_k = -shift_k
    moved = replace(w, b_enc=(w.b_enc.double() + shift_k).to(w.b_enc.dtype))
    if w.b_mag is not None and w.r_mag is not None:
        b_mag = w.b_mag.double() + shift_k * w.r_mag.double().exp()
        moved = replace(moved, b_mag=b_mag.to(w.b_mag.dtype))
    return replace(sae, weights=moved, apply_b_dec_to_input=apply)


def unit_rows(weights: Weights) -> Weights:
    """Rows of W_dec made unit (zero rows left alone), fp32: z is in the units of x.

    Their norms go to W_enc, b_enc, threshold and b_mag; r_mag, a factor of W_enc, stays. What fires
    stays too, except under TopK, which would choose others.
    """
    norm_k = _norms(weights.W_dec)

    def normed(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else (tensor.double() * norm_k).float()

    return Weights(
        W_enc=(weights.W_enc.double() * norm_k).float(),
        b_enc=(weights.b_enc.double() * norm_k).float(),
        W_dec=(weights.W_dec.double() / norm_k[:, None]).float(),
        b_dec=weights.b_dec.float(),
        threshold=normed(weights.threshold),
        b_mag=normed(weights.b_mag),
        r_mag=None if weights.r_mag is None else weights.r_mag.float(),
    )


def as_stored(path: object, weights: Weights) -> Weights:
    """TopK's `weights` in fp32, rows unit or zero; StudyError where that would change the choice.

    TopK chooses the k largest u_k. A row's norm moved to the encoder makes that u_k·‖d_k‖: the same
    latents only where all norms are equal, when one factor for all rows is moved.
    """
    # rows that were unit in training are so only to the precision they were stored in
    tolerance = max(UNIT, torch.finfo(weights.W_dec.dtype).eps)
    if float((_norms(weights.W_dec) - 1).abs().max()) <= tolerance:
        return Weights(**{name: tensor.float() for name, tensor in weights.named().items()})
    norm_k = weights.W_dec.double().norm(dim=1)
    alive = norm_k[norm_k > 0]
    common = float(alive.median())
    off = float((alive / common - 1).abs().max())
    if off > tolerance:
        raise StudyError(
            f"{path}: norms of decoder rows differ by up to {off:.2g} of their median (allowed "
            f"{tolerance:.2g}), and TopK chooses by pre-activations: unit rows would choose "
            "other latents; train it with a normalised decoder, or in SAELens with "
            "rescale_acts_by_decoder_norm"
        )
    return Weights(
        W_enc=(weights.W_enc.double() * common).float(),
        b_enc=(weights.b_enc.double() * common).float(),
        W_dec=(weights.W_dec.double() / common).float(),
        b_dec=weights.b_dec.float(),
    )


def _norms(w_dec: Tensor) -> Tensor:
    """‖d_k‖ [K] in fp64, 1 for zero rows."""
    norm_k = w_dec.double().norm(dim=1)
    return torch.where(norm_k > 0, norm_k, 1.0)
