"""Folders of SAELens, dictionary_learning, sparsify and Gemma Scope; see `interchange`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sae_repro.autoencoders.interchange.configs import (
    DICTIONARY_LEARNING_KEYS,
    REASONS,
    SAELENS_KEYS,
    SPARSIFY_KEYS,
    check_size,
    flag,
    read_config,
    refuse_unknown,
    section,
)
from sae_repro.autoencoders.interchange.layouts import (
    DICTIONARY_LEARNING,
    GEMMA_SCOPE,
    SAELENS,
    SPARSIFY,
    Layout,
    as_stored,
    to_ours,
    to_theirs,
    unit_rows,
)
from sae_repro.autoencoders.interchange.tensors import (
    check_finite,
    read_npz,
    read_safetensors,
    read_state_dict,
)
from sae_repro.autoencoders.saved import SAE
from sae_repro.autoencoders.weights import Weights
from sae_repro.errors import StudyError
from sae_repro.files import write_json
from sae_repro.params import layer_of
from sae_repro.params.axes import ARCHITECTURES

NOT_FOLDED = {
    "expected_average_only_in": "its scale is in no file of the folder: load it with sae_lens, "
    "call fold_activation_norm_scaling_factor(scale) with the scale of its training, save_model",
    "constant_norm_rescale": "each activation is divided by its own norm, which no weights can do; "
    "use sae_lens itself for it",
    "layer_norm": "each activation is divided by its own deviation, which no weights can do; use "
    "sae_lens itself for it",
}
"""Advice on SAELens folders whose `normalize_activations` is not part of the weights."""

METADATA = ("model_name", "hook_name", "hook_head_index", "context_size", "prepend_bos",
            "dataset_path", "neuronpedia_id")  # fmt: skip
"""Keys that SAELens before 6 kept beside the architecture in cfg.json."""


def _usable(path: object, sae: SAE) -> SAE:
    """`sae` as stored, made one of ours: fp32, rows unit."""
    row = ARCHITECTURES[sae.architecture]
    if row.reads_k and (type(sae.k) is not int or not 1 <= sae.k <= sae.d_sae):
        raise StudyError(f"{path}: k = {sae.k}: allowed are 1 … {sae.d_sae}; correct its config")
    weights = as_stored(path, sae.weights) if row.latents_compete else unit_rows(sae.weights)
    check_finite(path, weights.named())  # norms may have overflowed
    return replace(sae, weights=weights)


def read_saelens(folder: Path) -> SAE:
    """The SAE in a SAELens folder; StudyError where it normalises what no weights can hold."""
    path = folder / "cfg.json"
    config = read_config(path)
    refuse_unknown(path, config, SAELENS_KEYS, "sae_lens")
    architecture = _saelens_architecture(path, config)
    layout = _layout(path, "architecture", architecture, SAELENS)
    _check_input(path, config)
    weights_path = folder / "sae_weights.safetensors"
    tensors = read_safetensors(weights_path)
    if bool((tensors.get("scaling_factor", torch.ones(1)) == 1).all()):
        tensors.pop("scaling_factor", None)  # releases of old carry one that does nothing
    weights = to_ours(weights_path, tensors, layout)
    check_size(path, config, {"d_in": weights.d_in, "d_sae": weights.d_sae})
    # BatchTopK comes in checkpoints of training, where this is on by default
    batch = architecture != layout.architecture
    if (batch or layout.reads_k) and flag(
        path, config, "rescale_acts_by_decoder_norm", default=batch
    ):
        weights = _rescaled(weights)
    return _usable(
        weights_path,
        SAE(
            architecture=layout.architecture,
            weights=weights,
            apply_b_dec_to_input=flag(path, config, "apply_b_dec_to_input", default=True),
            k=_saelens_k(path, config) if layout.reads_k else None,
            metadata=_saelens_metadata(path, config),
        ),
    )


def _rescaled(weights: Weights) -> Weights:
    """Weights of an SAE that works on u·‖d‖, thresholds included: what unit rows give.

    The score of a latent without a decoder row is 0, so that it never fires.
    """
    threshold, alive_k = weights.threshold, weights.W_dec.any(dim=1)
    unit = unit_rows(replace(weights, threshold=None))
    return replace(
        unit, W_enc=unit.W_enc * alive_k, b_enc=unit.b_enc * alive_k, threshold=threshold
    )


def _saelens_architecture(path: Path, config: Mapping[str, Any]) -> str:
    """Before version 6, a TopK SAE was a standard one with another activation function."""
    refuse_unknown(
        path, section(path, config, "activation_fn_kwargs"), {"k"}, "sae_lens",
        "activation_fn_kwargs.",
    )  # fmt: skip
    architecture = str(config.get("architecture") or "standard")
    function = config.get("activation_fn") or config.get("activation_fn_str")
    usual = "topk" if architecture == "topk" else "relu"
    if function is None or function == usual:
        return architecture
    if architecture == "standard" and function == "topk":
        return "topk"
    return f"{architecture} with {function}"


def _saelens_k(path: Path, config: Mapping[str, Any]) -> int | None:
    old: int | None = section(path, config, "activation_fn_kwargs").get("k")
    k: int | None = config.get("k", old)
    if old not in (None, k):
        raise StudyError(f"{path}: k = {k}, but activation_fn_kwargs.k = {old}; correct it")
    return k


def _check_input(path: Path, config: Mapping[str, Any]) -> None:
    normalize = config.get("normalize_activations") or "none"
    if normalize is True:  # before version 3
        normalize = "expected_average_only_in"
    if normalize != "none":
        hint = NOT_FOLDED.get(normalize, "fold it with sae_lens, if it can, and save it again")
        raise StudyError(f"{path}: normalize_activations = {normalize}: {hint}")
    if config.get("finetuning_scaling_factor"):
        key = "finetuning_scaling_factor"
        raise StudyError(f"{path}: {key} = {config[key]}: {REASONS[key]}")
    reshape = config.get("reshape_activations") or "none"
    if reshape not in ("none", "hook_z"):  # hook_z: the heads side by side, as `extract` has them
        raise StudyError(
            f"{path}: reshape_activations = {reshape}: can't be read here; use sae_lens itself"
        )


def _saelens_metadata(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    old = {"hook_name": config.get("hook_point"), **config}
    metadata = section(path, config, "metadata") or {k: old[k] for k in METADATA if old.get(k)}
    # the version is that of the format, which becomes ours
    return {key: value for key, value in metadata.items() if key != "sae_lens_version"}


def read_dictionary_learning(folder: Path) -> SAE:
    """The SAE in a dictionary_learning folder; StudyError for classes of another kind."""
    path = folder / "config.json"
    config = read_config(path)
    refuse_unknown(path, config, {"trainer", "buffer", "metadata"}, "dictionary_learning")
    trainer, buffer = section(path, config, "trainer"), section(path, config, "buffer")
    refuse_unknown(path, trainer, DICTIONARY_LEARNING_KEYS, "dictionary_learning", "trainer.")
    if buffer.get("io") == "in_and_out":
        raise StudyError(f"{path}: buffer.io = in_and_out: {REASONS['transcode']}")
    layout = _layout(path, "trainer.dict_class", trainer.get("dict_class"), DICTIONARY_LEARNING)
    weights_path = folder / "ae.pt"
    tensors = read_state_dict(weights_path)
    weights = to_ours(weights_path, tensors, layout)
    check_size(path, trainer, {"activation_dim": weights.d_in, "dict_size": weights.d_sae})
    stored_k = int(tensors["k"]) if "k" in tensors else None
    k = trainer.get("k") or stored_k
    if layout.reads_k and stored_k not in (None, k):
        raise StudyError(
            f"{path}: trainer.k = {k}, but {weights_path} has k = {stored_k}; correct it"
        )
    metadata = {
        "model_name": trainer.get("lm_name"),
        "layer": trainer.get("layer"),
        "submodule_name": trainer.get("submodule_name"),
        "context_size": buffer.get("ctx_len"),
    }
    return _usable(
        weights_path,
        SAE(
            architecture=layout.architecture,
            weights=weights,
            apply_b_dec_to_input=layout.apply_b_dec_to_input,
            k=k if layout.reads_k else None,
            metadata=section(path, config, "metadata")
            or {key: value for key, value in metadata.items() if value is not None},
        ),
    )


def write_dictionary_learning(sae: SAE, folder: Path) -> None:
    """Write ae.pt and config.json, of the class that holds the architecture of `sae`."""
    classes = [
        (name, layout)
        for name, layout in DICTIONARY_LEARNING.items()
        if layout.architecture == sae.architecture
    ]
    if not classes:
        raise StudyError(
            f"format dictionary_learning: has no class for {sae.architecture}; export to saelens"
        )
    dict_class, layout = classes[0]
    state = to_theirs(sae, layout)
    metadata = dict(sae.metadata or {})
    trainer: dict[str, Any] = {
        "dict_class": dict_class,
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
        "layer": _layer(metadata.get("hook_name")),
        "lm_name": metadata.get("model_name"),
        "submodule_name": metadata.get("hook_name"),
    }
    if layout.reads_k:
        trainer["k"] = sae.k
        # below 0 its threshold was never measured: k per token are chosen
        state |= {"k": torch.tensor(sae.k, dtype=torch.int), "threshold": torch.tensor(-1.0)}
    torch.save(state, folder / "ae.pt")
    buffer = {"ctx_len": metadata.get("context_size")}
    write_json(folder / "config.json", {"trainer": trainer, "buffer": buffer, "metadata": metadata})


def _layer(hook: str | None) -> int | None:
    try:
        return layer_of(hook or "")
    except ValueError:
        return None


def read_sparsify(folder: Path) -> SAE:
    """The TopK SAE in a sparsify folder; StudyError for transcoders, groupmax and signed ones."""
    path = folder / "cfg.json"
    config = read_config(path)
    refuse_unknown(path, config, SPARSIFY_KEYS, "sparsify")
    # its first releases knew no other activation and didn't say so
    _layout(path, "activation", config.get("activation", "topk"), {"topk": SPARSIFY})
    weights_path = folder / "sae.safetensors"
    weights = to_ours(weights_path, read_safetensors(weights_path), SPARSIFY)
    d_in, d_sae = weights.d_in, weights.d_sae
    check_size(path, config, {"d_in": d_in, "num_latents": d_sae})
    if not config.get("num_latents") and d_sae % d_in == 0:  # else it states no width
        check_size(path, config, {"expansion_factor": d_sae // d_in})
    return _usable(
        weights_path,
        SAE(
            architecture=SPARSIFY.architecture,
            weights=weights,
            apply_b_dec_to_input=SPARSIFY.apply_b_dec_to_input,
            k=config.get("k"),
            metadata=section(path, config, "metadata"),
        ),
    )


def read_gemma_scope(folder: Path) -> SAE:
    """The JumpReLU SAE in a folder of Gemma Scope, which has no configuration.

    u = x·W_enc + b_enc, z = u·1[u > θ], x̂ = z·W_dec + b_dec (Lieberum et al. 2024,
    arXiv:2408.05147, section 2.2). A transcoder's file looks the same.
    """
    path = folder / "params.npz"
    # some files have the matrices in small letters
    renamed = {"w_enc": "W_enc", "w_dec": "W_dec"}
    tensors = {renamed.get(name, name): tensor for name, tensor in read_npz(path).items()}
    return _usable(
        path,
        SAE(
            architecture=GEMMA_SCOPE.architecture,
            weights=to_ours(path, tensors, GEMMA_SCOPE),
            apply_b_dec_to_input=GEMMA_SCOPE.apply_b_dec_to_input,
            metadata={},
        ),
    )


def write_sparsify(sae: SAE, folder: Path) -> None:
    """Write sae.safetensors and cfg.json; `sae` must be TopK."""
    from safetensors.torch import save_file

    save_file(to_theirs(sae, SPARSIFY), folder / "sae.safetensors")
    config = {
        "activation": "topk",
        # num_latents decides; sparsify wants a whole number here all the same
        "expansion_factor": max(1, round(sae.d_sae / sae.d_in)),
        "normalize_decoder": True,
        "num_latents": sae.d_sae,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_in,
        "metadata": dict(sae.metadata or {}),
    }
    write_json(folder / "cfg.json", config)


def _layout(path: Path, key: str, value: object, layouts: Mapping[str, Layout]) -> Layout:
    if not isinstance(value, str) or value not in layouts:
        raise StudyError(
            f"{path}: {key} = {value}: can't be read here; read are {', '.join(layouts)}"
        )
    return layouts[value]
