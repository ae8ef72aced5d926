"""A study's own model and SAEs, refused for what no stage sees before it has computed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params import LocalSubject, Study


def check_own_models(study: Study, folder: Path) -> None:
    """StudyError where the subject or an imported SAE can't be studied; `folder` has params.yaml.

    Both can be read: `preflight` has looked at them.
    """
    source = study.subject.source
    if isinstance(source, LocalSubject):
        path = folder / source.path
        _check_attention(read_json(path / "config.json"), f"subject.source.path: {path}")
    for name, cell in study.cells.items():
        if cell.import_ is not None and (folder / cell.import_).is_dir():
            _check_import(folder / cell.import_, f"cells.{name}.import: {cell.import_}")


def check_metadata(metadata: Mapping[str, Any] | None, what: str) -> None:
    """StudyError, which `what` begins, where no JSON file can hold what is known of an SAE."""
    for key, value in (metadata or {}).items():
        try:
            json.dumps({key: value}, allow_nan=False, ensure_ascii=False).encode()
        except ValueError:  # half a surrogate pair, too
            raise StudyError(
                f"{what}: its configuration has {key} = {json.dumps(value)[:60]}, which no JSON "
                "file can hold; write null there, or delete the key"
            ) from None


def _check_attention(config: Mapping[str, Any], what: str) -> None:
    """StudyError for a model whose eager attention is another function than the default one.

    FalconAttention of transformers 5.23 adds the bias to the scores, and again with the mask, which
    holds it already. All other families were equal (docs/models.md).
    """
    if config.get("model_type") == "falcon" and config.get("alibi"):
        raise StudyError(
            f"{what}: a Falcon with alibi: true: transformers' eager attention, in which hooks are "
            "read, adds that bias twice, and activations would be another model's; choose a model "
            "without (docs/models.md)"
        )


def _check_import(folder: Path, what: str) -> None:
    texts = [path.read_bytes() for path in sorted(folder.glob("c*g.json"))]
    if not any(word in text for text in texts for word in (b"NaN", b"Infinity", b"\\ud")):
        return  # else the weights would be read a second time
    from sae_repro.autoencoders.interchange import import_sae

    check_metadata(import_sae(folder).metadata, what)
