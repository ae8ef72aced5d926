"""One loader for every subject: trained here, local, or from the hub."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.checkpoint.tensors import tensor_problems
from sae_repro.errors import StudyError
from sae_repro.hub import one_line
from sae_repro.params import EMBEDDINGS, weights_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel


def load_subject(folder: Path, *, device: str = "cpu") -> "TransformerBridge":
    """The language model in artifacts/subject, in fp32, weights neither folded nor centred.

    StudyError where its tensors are not all there.
    """
    _check(folder)
    return bridged(load_plain(folder, str(folder), device=device), folder)


def load_plain(folder: Path, what: str, *, device: str = "cpu") -> "PreTrainedModel":
    """transformers' own model of a Hugging Face folder, in fp32, for inference.

    On the device "meta" no weight is read. StudyError, a line per fault that `what` begins, where
    tensors are missing, left over, or of another shape: transformers would draw random ones.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what its report says is an error here
    try:
        with torch.random.fork_rng(devices=[]):  # missing tensors are drawn at once
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="eager",  # the one in which hooks see what they name
                device_map="meta" if device == "meta" else None,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
            )
    except Exception as error:  # a damaged configuration or an optional library that is missing
        raise StudyError(f"{what}: transformers can't load the model ({one_line(error)})") from None
    model: PreTrainedModel
    model, report = loaded
    problems = [
        *tensor_problems(
            report["missing_keys"], report["unexpected_keys"], report["mismatched_keys"]
        ),
        *map(one_line, report["error_msgs"]),
    ]
    if problems:
        raise StudyError("\n".join(f"{what}: {line}" for line in problems))
    if device != "meta":
        torch.nn.Module.to(model, device)
    model.eval()
    return model


def vocabulary_of(model: "PreTrainedModel") -> int:
    """Number of token ids that `model` has an embedding of."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def load_untrained(
    folder: Path, weights_seed: int, *, device: str = "cpu", embeddings: bool = False
) -> "TransformerBridge":
    """A model of the same configuration as that in `folder`, its weights freshly initialised.

    As its architecture initialises them, from a generator seeded with `weights_seed` (0 … 2⁶³ − 1).
    `embeddings`: but for its embeddings, of tokens and, where it has them, of positions, which are
    those in `folder`.
    """
    _check(folder)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    # transformers initialises from torch's global generator: give it a seed, and put it back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        # eager attention is what the bridge loads a trained model with
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="eager"
        )
    if embeddings:
        trained = dict(load_plain(folder, str(folder)).named_modules())
        with torch.no_grad():
            for name, module in model.named_modules():
                if isinstance(module, torch.nn.Embedding):
                    module.weight.copy_(trained[name].weight)
    return bridged(model.to(device), folder)


def load_for(
    hook: str, folder: Path, manifest: Mapping[str, Any], *, device: str = "cpu"
) -> "TransformerBridge":
    """The model that a study reads `hook` from, by the `manifest` of its activations.

    It calls the hook by `model_hook(hook)`. StudyError where no random weights were read.
    """
    if not (prefix := weights_of(hook)):
        return load_subject(folder, device=device)
    if "untrained" not in manifest:
        where = f"extract.{prefix[:-1]}_hooks"
        raise StudyError(f"{hook}: this study has no {where}; add the hook there")
    return load_untrained(
        folder,
        manifest["untrained"]["weights_seed"],
        device=device,
        embeddings=prefix == EMBEDDINGS,
    )


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise StudyError(f"{folder}: no language model there; `dvc repro subject` makes it")
    # a local folder needs no hub, and a failing look-up would hang for seconds
    os.environ["HF_HUB_OFFLINE"] = "1"


def bridged(model: "PreTrainedModel", folder: Path) -> "TransformerBridge":
    """`model` with named hooks, for inference; its tokenizer is that in `folder`.

    The bridge takes the model's parts: `model` itself is not to be called any more.
    """
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    with torch.random.fork_rng(devices=[]):  # booting draws from torch's global generator
        bridge = TransformerBridge.boot_transformers(
            str(folder), device=str(model.device), dtype=torch.float32, hf_model=model
        )
    bridge.eval()
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    return bridge
