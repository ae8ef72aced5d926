"""A model from the Hugging Face hub, at the commit that the study pins."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.files import read_object
from sae_repro.hub import fetching, reachable
from sae_repro.params import HubSubject

# weights, configuration and tokenizer: nothing pickled, no code
FILES = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json",
          "tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json"]  # fmt: skip


def download(source: HubSubject, folder: Path) -> dict[str, Any]:
    """Put the model's files into `folder`; the facts for subject.json.

    Files of that commit that are cached already are used without the network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    fetch = partial(snapshot_download, source.name, revision=source.revision, allow_patterns=FILES)
    try:
        snapshot = fetch(local_files_only=True)
    except LocalEntryNotFoundError:
        what = f"subject.source: {source.name} at {source.revision}"
        reachable(what)
        with fetching(what):
            snapshot = fetch()
    for path in sorted(Path(snapshot).iterdir()):
        shutil.copy(path, folder / path.name)
    if not any(folder.glob("*.safetensors")):
        raise StudyError(
            f"subject.source.name = {source.name}: no safetensors weights at {source.revision}; "
            "choose a revision that has them (pickled weights are not read)"
        )
    _check_shape(source, read_object(folder / "config.json"))
    return {"name": source.name, "commit": source.revision}


def _check_shape(source: HubSubject, config: dict[str, Any]) -> None:
    actual = {
        "d_model": config.get("hidden_size") or config.get("n_embd"),
        "n_layers": config.get("num_hidden_layers") or config.get("n_layer"),
    }
    for name, value in actual.items():
        if getattr(source, name) != value:
            raise StudyError(
                f"subject.source.{name} = {getattr(source, name)}: the model has {value}"
            )
