"""Folders of SAELens, dictionary_learning and sparsify, read and written; see `interchange`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_repro.autoencoders.interchange.layouts import (
    DICTIONARY_LEARNING,
    SAELENS,
    SPARSIFY,
    Layout,
    as_stored,
    to_ours,
    to_theirs,
    unit_rows,
)
from sae_repro.autoencoders.saved import SAE
from sae_repro.errors import StudyError
from sae_repro.files import write_json
from sae_repro.hub import one_line
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
    if row.reads_k and (not isinstance(sae.k, int) or not 1 <= sae.k <= sae.d_sae):
        raise StudyError(f"{path}: k = {sae.k}: allowed are 1 … {sae.d_sae}; mend its config")
    weights = as_stored(path, sae.weights) if row.latents_compete else unit_rows(sae.weights)
    return replace(sae, weights=weights)


def read_saelens(folder: Path) -> SAE:
    """The SAE in a SAELens folder; StudyError where it normalises what no weights can hold."""
    path = folder / "cfg.json"
    config = _config(path)
    architecture = _saelens_architecture(config)
    layout = _layout(path, "architecture", architecture, SAELENS)
    _check_input(path, config)
    weights_path = folder / "sae_weights.safetensors"
    tensors = _safetensors(weights_path)
    if bool((tensors.get("scaling_factor", torch.ones(1)) == 1).all()):
        tensors.pop("scaling_factor", None)  # releases of old carry one that does nothing
    weights = to_ours(weights_path, tensors, layout)
    # BatchTopK comes in checkpoints of training, where this is on by default
    batch = architecture != layout.architecture
    if (batch or layout.reads_k) and config.get("rescale_acts_by_decoder_norm", batch):
        # it works on u·‖d‖, thresholds included: what unit rows give
        threshold = weights.threshold
        weights = replace(unit_rows(replace(weights, threshold=None)), threshold=threshold)
    return _usable(
        weights_path,
        SAE(
            architecture=layout.architecture,
            weights=weights,
            apply_b_dec_to_input=config.get("apply_b_dec_to_input", True),
            k=_saelens_k(config) if layout.reads_k else None,
            metadata=_saelens_metadata(config),
        ),
    )


def _saelens_architecture(config: Mapping[str, Any]) -> str:
    """Before version 6, a TopK SAE was a standard one with another activation function."""
    architecture = str(config.get("architecture", "standard"))
    function = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if architecture != "standard" or function == "relu":
        return architecture
    return "topk" if function == "topk" else f"{architecture} with {function}"


def _saelens_k(config: Mapping[str, Any]) -> int | None:
    k: int | None = config.get("k", config.get("activation_fn_kwargs", {}).get("k"))
    return k


def _check_input(path: Path, config: Mapping[str, Any]) -> None:
    normalize = config.get("normalize_activations") or "none"
    if normalize is True:  # before version 3
        normalize = "expected_average_only_in"
    if normalize != "none":
        hint = NOT_FOLDED.get(normalize, "fold it with sae_lens, if it can, and save it again")
        raise StudyError(f"{path}: normalize_activations = {normalize}: {hint}")
    if config.get("finetuning_scaling_factor"):
        raise StudyError(
            f"{path}: finetuning_scaling_factor = true: z is scaled once more behind the encoder, "
            "which nothing here does; use sae_lens itself for it"
        )


def _saelens_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    old = {"hook_name": config.get("hook_point"), **config}
    metadata = config.get("metadata") or {key: old[key] for key in METADATA if old.get(key)}
    # the version is that of the format, which becomes ours
    return {key: value for key, value in metadata.items() if key != "sae_lens_version"}


def read_dictionary_learning(folder: Path) -> SAE:
    """The SAE in a dictionary_learning folder; StudyError for classes of another kind."""
    path = folder / "config.json"
    config = _config(path)
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    layout = _layout(path, "trainer.dict_class", trainer.get("dict_class"), DICTIONARY_LEARNING)
    weights_path = folder / "ae.pt"
    tensors = _state_dict(weights_path)
    k = trainer.get("k", int(tensors["k"]) if "k" in tensors else None)
    metadata = {
        "model_name": trainer.get("lm_name"),
        "layer": trainer.get("layer"),
        "submodule_name": trainer.get("submodule_name"),
        "context_size": (config.get("buffer") or {}).get("ctx_len"),
    }
    return _usable(
        weights_path,
        SAE(
            architecture=layout.architecture,
            weights=to_ours(weights_path, tensors, layout),
            apply_b_dec_to_input=layout.apply_b_dec_to_input,
            k=k if layout.reads_k else None,
            metadata=config.get("metadata") or {k: v for k, v in metadata.items() if v is not None},
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
    """The TopK SAE in a sparsify folder; StudyError for transcoders and groupmax."""
    path = folder / "cfg.json"
    config = _config(path)
    # its first releases knew no other activation and didn't say so
    _layout(path, "activation", config.get("activation", "topk"), {"topk": SPARSIFY})
    if config.get("transcode") or config.get("skip_connection"):
        raise StudyError(f"{path}: a transcoder, which maps one activation to another; give an SAE")
    weights_path = folder / "sae.safetensors"
    return _usable(
        weights_path,
        SAE(
            architecture=SPARSIFY.architecture,
            weights=to_ours(weights_path, _safetensors(weights_path), SPARSIFY),
            apply_b_dec_to_input=SPARSIFY.apply_b_dec_to_input,
            k=config.get("k"),
            metadata=config.get("metadata") or {},
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


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{path}: damaged ({one_line(error)}); fetch it again") from None
    if not isinstance(config, dict):
        raise StudyError(f"{path}: no configuration; fetch it again")
    return config


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise StudyError(f"{path}: damaged ({one_line(error)}); fetch it again") from None


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        # a pickle can run any code on loading; this reads tensors and nothing else
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises what it happens to hit
        # the message would tell how to run the code after all
        raise StudyError(
            f"{path}: damaged, or it holds more than tensors, which is never run "
            f"({type(error).__name__}); save it as torch.save(ae.state_dict(), path)"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise StudyError(f"{path}: no state dict; save it as torch.save(ae.state_dict(), path)")
    return state
