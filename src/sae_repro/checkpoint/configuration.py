"""The configuration of a model: a causal language model of text, and its size."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.checkpoint.wording import AGAIN
from sae_repro.errors import StudyError
from sae_repro.hub import one_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
CODE = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")


@dataclass(frozen=True)
class Shape:
    """Size of a language model; `positions` is None where nothing bounds a row's length."""

    d_model: int
    n_layers: int
    positions: int | None


def read_config(folder: Path, what: str) -> "PretrainedConfig":
    """config.json of a causal language model that transformers and TransformerLens both know.

    StudyError for any other: encoders, encoder-decoders, models of images or sound, quantised
    weights, code of the model's own, architectures that are not known.
    """
    from transformers import CONFIG_MAPPING, AutoConfig
    from transformers.utils import logging

    content = _json(folder / "config.json", what)
    kind = content.get("model_type")
    if any(key in CODE for key in content.get("auto_map") or ()):
        raise StudyError(
            f"{what}: config.json names code of the model's own (auto_map), which is not run; "
            "where transformers' own class is the same model, take auto_map out of a copy's "
            "config.json and study that"
        )
    if kind not in CONFIG_MAPPING:
        raise StudyError(
            f"{what}: config.json has model_type {kind!r}, which transformers does not know; "
            "docs/models.md lists the models that can be studied"
        )
    if content.get("quantization_config") or content.get("compression_config"):
        raise StudyError(
            f"{what}: the weights are quantised (quantization_config); study the model that it "
            "was made from, or save a dequantised copy"
        )
    logging.set_verbosity_error()  # faults are refused here, the rest is no concern
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each configuration class validates in its own way
        raise StudyError(f"{what}: config.json can't be read ({one_line(error)})") from None
    _check_causal(config, what)
    return config


def shape_of(config: "PretrainedConfig", what: str) -> Shape:
    """Size of the language model by its configuration, whatever its keys are called there."""
    text = config.get_text_config(decoder=True)
    sizes = [_size(text, name) for name in ("hidden_size", "num_hidden_layers")]
    if sizes[0] is None or sizes[1] is None:
        raise StudyError(
            f"{what}: config.json (model_type {config.model_type}) names no width and number of "
            "layers"
        )
    bounds = [size for name in POSITIONS if (size := _size(text, name))]
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if isinstance(rope, dict) and rope.get("rope_type") == "longrope":
        # beyond these, a row's length changes the encoding of all its positions
        original = rope.get("original_max_position_embeddings") or _size(
            text, "original_max_position_embeddings"
        )
        bounds += [original] if original else []
    return Shape(sizes[0], sizes[1], min(bounds, default=None))


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{what}: {path.name} can't be read ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise StudyError(f"{what}: {path.name} is no JSON object; {AGAIN}")
    return content


def _check_causal(config: "PretrainedConfig", what: str) -> None:
    """StudyError unless both libraries read the folder as a causal language model of text."""
    from transformer_lens.model_bridge.sources import transformers as lens
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.model_type
    named = ", ".join(config.architectures or ()) or kind
    no_causal = (
        f"{what}: {named} (model_type {kind}) is no causal language model of text: its activations "
        "would depend on later tokens, or on other inputs; docs/models.md lists those that can be "
        "studied"
    )
    masked = any(name.endswith("ForMaskedLM") for name in config.architectures or ())
    if config.is_encoder_decoder or masked or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise StudyError(no_causal)
    try:
        architecture = lens.determine_architecture_from_hf_config(config)
    except ValueError:
        raise StudyError(
            f"{what}: TransformerLens, which reads the activations, does not know {named} "
            f"(model_type {kind}); docs/models.md lists the models that can be studied"
        ) from None
    if lens.get_hf_model_class_for_architecture(architecture) is not AutoModelForCausalLM:
        raise StudyError(no_causal)


def _size(config: "PretrainedConfig", name: str) -> int | None:
    """A positive whole number of the configuration; None where it has none of that name."""
    try:
        value = getattr(config, name, None)
    except Exception:  # sizes that differ by layer raise an error of their own
        return None
    return value if isinstance(value, int) and value > 0 else None
