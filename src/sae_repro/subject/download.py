"""A model from the Hugging Face hub, at the commit that the study pins."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from sae_repro.checkpoint.configuration import read_config, shape_of
from sae_repro.errors import StudyError
from sae_repro.hub import fetching, reachable
from sae_repro.params import HubSubject

# weights, configuration and tokenizer: nothing pickled, no code
FILES = ["config.json", "generation_config.json", "model*.safetensors",
          "model.safetensors.index.json", "tokenizer*", "vocab.json", "merges.txt",
          "special_tokens_map.json"]  # fmt: skip


def download(source: HubSubject, folder: Path) -> dict[str, Any]:
    """Put the model's files into `folder`; the facts for subject.json."""
    for path in sorted(fetched(source).iterdir()):
        if path.is_file():  # a pattern of the hub's client matches in folders, too
            shutil.copy(path, folder / path.name)
    return {"name": source.name, "commit": source.revision}


def fetched(source: HubSubject) -> Path:
    """The model's folder in the hub's cache; files of that commit that are there need no network.

    StudyError where the hub can't be reached, or the model has no safetensors weights or another
    size than the study says.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    fetch = partial(snapshot_download, source.name, revision=source.revision, allow_patterns=FILES)
    try:
        snapshot = Path(fetch(local_files_only=True))
    except LocalEntryNotFoundError:
        what = f"subject.source: {source.name} at {source.revision}"
        reachable(what)
        with fetching(what):
            snapshot = Path(fetch())
    if not any(snapshot.glob("*.safetensors")):
        raise StudyError(
            f"subject.source.name = {source.name}: no safetensors weights at {source.revision}; "
            "choose a revision that has them (pickled weights are not read)"
        )
    _check_shape(source, snapshot)
    return snapshot


def _check_shape(source: HubSubject, folder: Path) -> None:
    what = f"subject.source.name = {source.name}"
    shape = shape_of(read_config(folder, what), what)
    for name in ("d_model", "n_layers"):
        stated, value = getattr(source, name), getattr(shape, name)
        if stated != value:
            raise StudyError(f"subject.source.{name} = {stated}: the model has {value}")
