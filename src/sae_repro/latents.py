"""Inspection of single latents, and the activations of any text.

from sae_repro.autoencoders import load
from sae_repro.latents import activations_of, neighbours

sae = load("artifacts/train/topk-x8-k16/seed-0")
tokens, x_td = activations_of("the cat sat", hook="blocks.1.hook_resid_post")
z_tk = sae.encode(x_td)
neighbours(sae, int(z_tk[-1].argmax()))
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.contents import check
from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params import layer_of, model_hook
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.row_start import row_start
from sae_repro.readers.subject import load_for

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def decoder_weights(sae: SAE, latent: int) -> Tensor:
    """d_k [D], the atom of `latent`; StudyError outside 0 … K−1."""
    if not 0 <= latent < sae.d_sae:
        raise StudyError(f"latent {latent}: this SAE has 0 … {sae.d_sae - 1}; choose one of them")
    return sae.weights.W_dec[latent]


def neighbours(sae: SAE, latent: int, n: int = 10) -> list[tuple[int, float]]:
    """The n latents with the nearest atoms, by cosine, largest first.

    Neither `latent` itself nor latents without an atom (zero rows) are among them, so that there
    can be fewer than n. StudyError where `latent` has no atom.
    """
    atom = decoder_weights(sae, latent)
    if not bool(atom.any()):
        raise StudyError(f"latent {latent}: its atom is zero and has no neighbours; choose another")
    norm_k = sae.weights.W_dec.norm(dim=1)
    cosine_k = sae.weights.W_dec @ atom / (norm_k * atom.norm())
    candidates = norm_k > 0
    candidates[latent] = False
    cosine_k = torch.where(candidates, cosine_k, -torch.inf)
    values, latents = cosine_k.topk(min(n, int(candidates.sum())))
    return list(zip(latents.tolist(), values.tolist(), strict=True))


def activations_of(text: str, study: Path | str = ".", *, hook: str) -> tuple[list[str], Tensor]:
    """The T tokens of `text` and the subject's raw activations [T, D] at `hook`, fp32.

    As the study itself reads them: its tokenizer, rows of at most its context, behind the token
    that it starts rows with, if any (not returned); `untrained/<hook>` is read from the study's
    random weights. Tokens that extraction leaves out, a row's first and those beyond
    `extract.norm_limit`, are among them: no SAE was trained on their like.
    StudyError where the study has not run that far or is damaged, the model has no such hook, or
    the text has no token.
    """
    artifacts = Path(study) / "artifacts"
    check(artifacts / "corpus")
    check(artifacts / "subject")
    check(artifacts / "extract", "manifest.json")
    manifest = read_json(artifacts / "extract" / "manifest.json")
    tokenizer = TokenDocuments.load(artifacts / "corpus").tokenizer()
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    if not ids:
        raise StudyError(f"text {text!r}: no token in it; give some words")
    start = row_start(tokenizer, manifest["prepend_bos"])
    bos = [] if start is None else [start]
    room = manifest["context"] - len(bos)
    rows = [bos + ids[start : start + room] for start in range(0, len(ids), room)]
    subject = load_for(hook, artifacts / "subject", manifest)
    x_td = torch.cat([_activations(subject, row, model_hook(hook))[len(bos) :] for row in rows])
    return tokenizer.backend_tokenizer.decode_batch(
        [[i] for i in ids], skip_special_tokens=False
    ), x_td


def _activations(subject: "TransformerBridge", ids: list[int], hook: str) -> Tensor:
    """[len(ids), D] of one row."""
    try:
        stop = layer_of(hook) + 1
    except ValueError as error:
        raise StudyError(str(error)) from None
    if hook not in subject.hook_dict:
        raise StudyError(
            f"{hook}: the subject has no such hook; its layers are 0 … {subject.cfg.n_layers - 1}"
        )
    with torch.no_grad():
        cache: Any
        _, cache = subject.run_with_cache(
            torch.tensor([ids]), names_filter=[hook], stop_at_layer=stop
        )
    x_td: Tensor = cache[hook][0].float()
    return x_td
