"""The command `pin`, and params.yaml edited so that comments and order survive."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sae_repro.errors import StudyError
from sae_repro.files import sha256_file, write_text
from sae_repro.params import parse, read_yaml
from sae_repro.pins import model_digest

WIDTH = 80
"""Columns beyond which DVC breaks a line where it writes params.yaml."""
ANY_PIN = "0" * 64


def pin_inputs(folder: Path) -> list[str]:
    """Renew the hashes of all inputs that a study pins, its files, models and SAEs; the changes."""
    path = folder / "params.yaml"
    check_but_pins(path)
    yaml, raw = open_yaml(path)
    changes = []
    for key, entry, field, digest in _pins(raw, folder):
        if digest != entry.get(field):
            changes.append(f"{key}: {entry.get(field)} → {digest}")
            entry[field] = digest
    if changes:
        write_text(path, yaml_text(yaml, raw))
    return changes


def check_but_pins(path: Path) -> None:
    """StudyError where params.yaml at `path` is no valid study, whatever its pins are by now."""
    parse(_with_any_pins(read_yaml(path)), source=str(path))


def _with_any_pins(value: Any) -> Any:
    """`value` with a well-formed hash wherever one stands or is missing."""
    if isinstance(value, list):
        return [_with_any_pins(item) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {key: _with_any_pins(item) for key, item in value.items()}
    if "path" in filled or filled.get("import") is not None:
        filled["sha256"] = ANY_PIN
    if filled.get("kind") in ("files", "activations") and isinstance(filled.get("files"), dict):
        filled["files"] = dict.fromkeys(filled["files"], ANY_PIN)
    return filled


def _pins(raw: Any, folder: Path) -> Iterator[tuple[str, Any, str, str]]:
    """(key, mapping, field of it, SHA-256 today) of each pin; StudyError for a missing input."""
    source = raw["corpus"]["source"]
    if source["kind"] in ("files", "activations"):
        for name in source["files"]:
            path = _file(folder / name, "corpus.source.files")
            yield f"corpus.source.files.{name}", source["files"], name, sha256_file(path)
    if table := source.get("table"):
        path = _file(folder / table["path"], "corpus.source.table")
        yield "corpus.source.table.sha256", table, "sha256", sha256_file(path)
    model = raw["subject"]["source"]
    if model["kind"] == "local":
        if not (folder / model["path"]).is_dir():
            raise StudyError(f"subject.source.path: {folder / model['path']} is missing")
        yield "subject.source.sha256", model, "sha256", model_digest(folder / model["path"])
    elif model["kind"] == "gguf":
        path = _file(folder / model["path"], "subject.source.path")
        yield "subject.source.sha256", model, "sha256", sha256_file(path)
    labels = (raw.get("evaluate") or {}).get("concepts")
    claims = (raw.get("compare") or {}).get("claims")
    prompts = (raw.get("judge") or {}).get("prompts") or {}
    worlds = [w for w in (raw.get("control") or {}).get("worlds") or [] if not isinstance(w, str)]
    for key, entry in [
        *((f"control.worlds.{number}", world) for number, world in enumerate(worlds)),
        *([("evaluate.concepts", labels)] if labels else []),
        *([("compare.claims", claims)] if claims else []),
        *((f"judge.prompts.{name}", prompt) for name, prompt in prompts.items()),
    ]:
        path = _file(folder / entry["path"], f"{key}.path")
        yield f"{key}.sha256", entry, "sha256", sha256_file(path)
    for name, cell in raw["cells"].items():
        if "import" in cell and (folder / cell["import"]).is_dir():
            yield f"cells.{name}.sha256", cell, "sha256", model_digest(folder / cell["import"])


def _file(path: Path, key: str) -> Path:
    if not path.is_file():
        raise StudyError(f"{key}: {path} is missing")
    return path


def open_yaml(path: Path) -> tuple[YAML, Any]:
    """(a YAML that keeps comments, order and quotes; the document at `path`)."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    return yaml, yaml.load(path.read_text(encoding="utf-8"))


def yaml_text(yaml: YAML, raw: Any) -> str:
    """The text of the document that `open_yaml` gave."""
    text = StringIO()
    yaml.dump(raw, text)
    return text.getvalue()
