"""A trained SAE on disk: a folder that SAELens' `SAE.load_from_disk` loads as it is.

sae_weights.safetensors holds W_enc, b_enc, W_dec, b_dec (jumprelu: + threshold [K]; gated: b_gate,
b_mag, r_mag in b_enc's place) and acts on raw activations; cfg.json names the architecture, a row
of `params.axes.ARCHITECTURES`. What does not matter at inference is not kept: prefixes never, and
BatchTopK is a JumpReLU with one threshold. A transcoder's folder is one of SAELens too, where it
has the architecture: W_dec and b_dec lie at the target hook, W_skip [D_out, D] beside them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_repro.autoencoders.activations import INFERENCE, batchtopk_threshold, pre_activations
from sae_repro.autoencoders.transcoding import skipped
from sae_repro.autoencoders.weights import Weights
from sae_repro.contents import check_if_sealed
from sae_repro.errors import StudyError
from sae_repro.files import read_object, remedy, replacing, write_json
from sae_repro.params import Cell
from sae_repro.params.axes import ARCHITECTURES, Architecture

SAE_LENS_FORMAT = "6.54.12"  # the release whose format this is; < 6 makes SAELens drop keys


@dataclass(frozen=True)
class SAE:
    """An SAE for use: `encode` and `decode` of raw activations. Rows of W_dec are unit or zero.

    A transcoder encodes activations of its hook and decodes to its target's; `with_skip` adds what
    its skip connection gives. A crosscoder's x are those of its hooks side by side, to be taken
    apart by `crosscoding`; rows of its W_dec are unit once each hook's part is multiplied by the
    hook's scale.
    """

    architecture: str
    weights: Weights
    apply_b_dec_to_input: bool = True
    k: int | None = None
    metadata: Mapping[str, Any] | None = None
    transcodes: bool = False

    @property
    def latents_compete(self) -> bool:
        """Whether a latent's z depends on the others, so that none can be encoded alone."""
        return ARCHITECTURES[self.architecture].latents_compete

    @property
    def d_in(self) -> int:
        """D."""
        return self.weights.d_in

    @property
    def d_sae(self) -> int:
        """K."""
        return self.weights.d_sae

    @property
    def d_out(self) -> int:
        """D_out, the width of x̂: D, but of a transcoder."""
        return self.weights.d_out

    @property
    def stored_architecture(self) -> str:
        """Its name in cfg.json."""
        row = ARCHITECTURES[self.architecture]
        skip = self.weights.W_skip is not None
        return row.transcoder(skip=skip) if self.transcodes else row.name

    @property
    def in_saelens(self) -> bool:
        """Whether SAELens has its architecture, under this name."""
        row = ARCHITECTURES[self.architecture]
        return row.transcoder_in_saelens if self.transcodes else row.in_saelens

    def encode(self, x_nd: Tensor) -> Tensor:
        """z [N, K] ≥ 0 of raw activations x [N, D]."""
        encode = INFERENCE[self.architecture]
        return encode(self.weights, x_nd, self.apply_b_dec_to_input, self.k)

    def decode(self, z_nk: Tensor) -> Tensor:
        """x̂ [N, D] of z [N, K]."""
        return torch.addmm(self.weights.b_dec, z_nk, self.weights.W_dec)

    def decode_nonzeros(self, value_m: Tensor, latent_m: Tensor, begin_n: Tensor) -> Tensor:
        """x̂ [N, D] of the nonzeros of z, row by row: those of each begin at `begin_n`."""
        x_hat = torch.nn.functional.embedding_bag(
            latent_m, self.weights.W_dec, begin_n, mode="sum", per_sample_weights=value_m
        )
        return x_hat.add_(self.weights.b_dec)

    def with_skip(self, x_hat_nd: Tensor, x_nd: Tensor) -> Tensor:
        """The whole prediction [N, D_out]: a decode and what the skip connection adds, if any."""
        linear_nd = skipped(self.weights, x_nd)
        return x_hat_nd if linear_nd is None else x_hat_nd + linear_nd


@torch.no_grad()
def finished(
    cell: Cell,
    weights: Weights,
    *,
    scale: float = 1.0,
    scale_d: Tensor | None = None,
    target_scale: float | None = None,
    centre_d: Tensor | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> SAE:
    """Trained weights as an SAE on raw activations x, where training saw s·x (`scale` s).

    W_enc·s, W_dec/s and b_dec/s leave the pre-activations as they are; then rows of W_dec become
    unit (zero rows are left alone) and their norms go to the encoder, thresholds and b_mag, so that
    z is in the units of x. A batchtopk SAE still needs its threshold: see `calibrated`.

    Of a transcoder, training saw s·(x − c) and s'·y (`centre_d` c [D], `target_scale` s'): W_dec/s'
    and b_dec/s'; W_skip·s/s', with its part of c in b_dec; b_enc, and by e^r b_mag, less s·c·W_enc.
    z is in the units of y.

    Of a crosscoder training saw s_d·x_d, with `scale_d` [D] the scale of each entry's hook, and s
    is that of all hooks together: what becomes unit are the rows of W_dec as trained, so that
    latents that compete keep their order, and z is in the units of x, all hooks together.
    """
    decoded = scale if target_scale is None else target_scale
    w_dec, b_enc = weights.W_dec.double() / decoded, weights.b_enc.double()
    b_dec, w_skip = weights.b_dec.double() / decoded, weights.W_skip
    b_mag = weights.b_mag
    if w_skip is not None:
        w_skip = w_skip.double() * (scale / decoded)
    if centre_d is not None:
        shift_k = (centre_d.double() * scale) @ weights.W_enc.double()
        b_enc = b_enc - shift_k
        if b_mag is not None and weights.r_mag is not None:
            b_mag = b_mag.double() - weights.r_mag.double().exp() * shift_k
        if w_skip is not None:
            b_dec = b_dec - centre_d.double() @ w_skip.T
    norm = w_dec.norm(dim=1)
    norm = torch.where(norm > 0, norm, 1.0)
    dtype = weights.W_enc.dtype
    w_enc = weights.W_enc.double()
    if scale_d is None:
        w_enc = w_enc * scale
    else:
        w_enc, relative_d = w_enc * scale_d[:, None], scale_d / scale
        w_dec, b_dec = w_dec / relative_d, b_dec / relative_d

    def normed(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else (tensor.double() * norm).to(dtype)

    folded = Weights(
        W_enc=(w_enc * norm).to(dtype).contiguous(),
        b_enc=(b_enc * norm).to(dtype),
        W_dec=(w_dec / norm[:, None]).to(dtype),
        b_dec=b_dec.to(dtype),
        threshold=normed(weights.threshold),
        b_mag=normed(b_mag),
        r_mag=None if weights.r_mag is None else weights.r_mag.detach(),
        W_skip=None if w_skip is None else w_skip.to(dtype),
    )
    architecture = ARCHITECTURES[cell.activation_row.architecture]
    return SAE(
        architecture=architecture.name,
        weights=folded,
        apply_b_dec_to_input=cell.subtracts_b_dec,
        k=cell.k if architecture.reads_k else None,
        metadata=metadata,
        transcodes=cell.target_hook is not None,
    )


def calibrated(sae: SAE, batches: Iterable[Tensor], k: int, tokens: int) -> SAE:
    """`sae` with the threshold that lets k latents per token through.

    `batches` [n, D] hold `tokens` activations in all.
    """
    scores = (
        pre_activations(sae.weights, x_nd, apply_b_dec_to_input=sae.apply_b_dec_to_input)
        for x_nd in batches
    )
    threshold = batchtopk_threshold(scores, k, tokens)
    weights = replace(sae.weights, threshold=torch.full_like(sae.weights.b_enc, threshold))
    return replace(sae, weights=weights)


def save(sae: SAE, folder: Path) -> None:
    """Write sae_weights.safetensors and cfg.json into `folder`."""
    from safetensors.torch import save_file

    architecture = ARCHITECTURES[sae.architecture]
    tensors = {name: t.detach().cpu().contiguous() for name, t in sae.weights.named().items()}
    tensors[architecture.b_enc_name] = tensors.pop("b_enc")
    with replacing(folder / "sae_weights.safetensors") as path:
        save_file(tensors, path)
    config: dict[str, Any] = {
        "architecture": sae.stored_architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if sae.transcodes:
        config["d_out"] = sae.d_out
    if architecture.reads_k:
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    config["metadata"] = {"sae_lens_version": SAE_LENS_FORMAT, **(sae.metadata or {})}
    write_json(folder / "cfg.json", config)


def load(folder: Path | str, *, device: str = "cpu") -> SAE:
    """The SAE that `save` wrote; StudyError where files are missing or don't fit each other.

    In a folder with a contents.json, as a stage leaves it, they are compared with their hashes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config = read_object(folder / "cfg.json")
    path = folder / "sae_weights.safetensors"
    if not path.is_file():
        raise StudyError(f"{path}: missing; {remedy(path)}")
    check_if_sealed(folder, "cfg.json", path.name)
    try:
        tensors = load_file(path, device=device)
        row = STORED.get(config["architecture"])
        d_in, d_sae, metadata = config["d_in"], config["d_sae"], config["metadata"]
        d_out = config["d_out"] if row is not None and row[1] else d_in
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: can't be read ({error}); {remedy(path)}") from None
    except (KeyError, TypeError) as error:
        raise StudyError(
            f"{folder / 'cfg.json'}: has no {error}; {remedy(folder / 'cfg.json')}"
        ) from None
    if row is None:
        raise StudyError(
            f"{folder / 'cfg.json'}: architecture = {config['architecture']}: unknown here; known "
            f"are {', '.join(STORED)}"
        )
    architecture, transcodes, skip = row
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = _shapes(architecture, d_in, d_sae, d_out)
    if skip:
        expected["W_skip"] = (d_out, d_in)
    if shapes != expected:
        raise StudyError(f"{path}: holds {shapes}, cfg.json wants {expected}")
    tensors["b_enc"] = tensors.pop(architecture.b_enc_name)
    return SAE(
        architecture=architecture.name,
        weights=Weights(**tensors),
        apply_b_dec_to_input=config.get("apply_b_dec_to_input", True),
        k=config.get("k"),
        metadata=metadata,
        transcodes=transcodes,
    )


STORED = {row.name: (row, False, False) for row in ARCHITECTURES.values()} | {
    row.transcoder(skip=skip): (row, True, skip)
    for row in ARCHITECTURES.values()
    for skip in (False, True)
}
"""By the name in cfg.json: (its row, whether it is a transcoder, whether that has W_skip)."""


def _shapes(
    architecture: Architecture, d_in: int, d_sae: int, d_out: int
) -> dict[str, tuple[int, ...]]:
    return {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_out),
        "b_dec": (d_out,),
        **dict.fromkeys((architecture.b_enc_name, *architecture.extra), (d_sae,)),
    }
