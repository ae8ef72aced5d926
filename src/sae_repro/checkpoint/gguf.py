"""A model in a GGUF file, llama.cpp's format: dequantised once, to an ordinary folder in fp32.

Weights are what the quantised ones stand for (for Q4_1: scale · integer + minimum, in fp32), as
transformers reads them with the package `gguf`: the model that llama.cpp runs, not the one that the
file was made from. The file's chat template is not used: documents are read as they are.
"""

from pathlib import Path
from typing import Any

from sae_repro.contents import Changed, examine, sealed_folder
from sae_repro.errors import StudyError
from sae_repro.files import read_object, write_json
from sae_repro.hub import one_line
from sae_repro.progress import say

MAGIC = b"GGUF"


def converted(file: Path, what: str, folder: Path) -> Path:
    """The Hugging Face folder of a GGUF file: `folder`, written if it is not there, or not whole.

    `what` begins each line of a StudyError: no GGUF file, or an architecture or a quantisation that
    transformers does not read.
    """
    try:
        examine(folder)
        return folder
    except Changed:
        pass
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise StudyError(f"{what}: no GGUF file (it does not begin with GGUF)")
    say(f"dequantising {file.name} to {folder}, once")
    with sealed_folder(folder) as place:
        _write(file, what, place)
    return folder


def _write(file: Path, what: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    place: dict[str, Any] = {
        "pretrained_model_name_or_path": file.parent,
        "gguf_file": file.name,
        "trust_remote_code": False,
        "local_files_only": True,
    }
    loaded: Any
    try:
        with torch.random.fork_rng(devices=[]):  # tensors that the file lacks are drawn
            loaded = AutoModelForCausalLM.from_pretrained(
                **place, dtype=torch.float32, output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(**place)
    except Exception as error:  # each architecture and quantisation fails in its own way
        raise StudyError(
            f"{what}: transformers can't read this GGUF file ({one_line(error)}); name the model "
            "that it was made from as a folder (kind: local) or of the hub (kind: hub)"
        ) from None
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise StudyError(f"{what}: {len(missing)} tensors are missing in it, such as {missing[0]}")
    # what is left is no quantised model, and transformers refuses to save one
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _without_tokens_of_its_class(folder, int(model.get_input_embeddings().weight.shape[0]))


def _without_tokens_of_its_class(folder: Path, rows: int) -> None:
    """Take out special tokens that transformers adds to the file's own, beyond the embedding."""
    listed = read_object(folder / "tokenizer.json")
    added = {entry["content"] for entry in listed["added_tokens"] if entry["id"] >= rows}
    if not added:
        return
    listed["added_tokens"] = [e for e in listed["added_tokens"] if e["content"] not in added]
    write_json(folder / "tokenizer.json", listed)
    path = folder / "tokenizer_config.json"
    options = read_object(path).items()
    write_json(path, {k: v for k, v in options if not (isinstance(v, str) and v in added)})
