"""The commands `new` and `pin`: params.yaml edited so that comments and order survive."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sae_repro.cli.schema import modeline
from sae_repro.errors import StudyError
from sae_repro.files import read_json, sha256_file, write_text
from sae_repro.params import HOOKS, UNTRAINED, load, model_hook, on_random_weights, read_yaml
from sae_repro.pins import model_digest
from sae_repro.preflight import check_inputs

CONTEXT = 128  # positions per row for text that is longer than the stories


@dataclass(frozen=True)
class StudyRequest:
    """Text, model and hooks of a new study; empty fields stay as in the study it is made from."""

    text: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    label: str | None = None
    model: str | None = None
    revision: str | None = None
    d_model: int | None = None
    n_layers: int | None = None
    hooks: tuple[str, ...] = ()


def make_study(name: str, base: Path, request: StudyRequest) -> Iterator[str]:
    """Make studies/`name` in the current folder from `base`; lines to show."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise StudyError(f"NAME = {name}: lower-case letters, digits, - and _ only")
    folder = Path("studies") / name
    if not Path("dvc.yaml").is_file() or not Path("stages").is_dir():
        raise StudyError("run this in the repository's root, where dvc.yaml and stages/ are")
    if folder.exists():
        raise StudyError(f"{folder} exists already; choose another name")
    read_yaml(base / "params.yaml")  # for its errors: missing, or no YAML
    yaml, raw = _open(base / "params.yaml")
    raw["root"] = "../.."
    notes = [f"made {folder} from {base / 'params.yaml'}"]
    folder.mkdir(parents=True)
    try:
        raw.yaml_set_start_comment(
            f"{modeline('../../params.schema.json')}\n"
            f"Study {name}. Every key: sae-repro check --schema"
        )
        notes += _apply(raw, request, folder)
        _write(yaml, raw, folder / "params.yaml")
        (folder / "dvc.yaml").symlink_to(Path("../../dvc.yaml"))
        study = load(folder / "params.yaml")
        check_inputs(study, folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    yield from notes
    yield f"next: dvc repro {folder}/dvc.yaml"


def _apply(raw: Any, request: StudyRequest, folder: Path) -> list[str]:
    notes = []
    if request.text:
        raw["corpus"]["source"] = _text_source(request, folder)
        if raw["subject"].get("training") and not request.model:
            for section in (raw["subject"]["training"], raw["extract"]):
                section["context"] = CONTEXT
            notes.append(f"subject: trained on this text, {CONTEXT} positions")
    elif request.columns or request.label:
        raise StudyError("--column and --label describe a --text file; name one")
    if request.model:
        layers = _use_model(raw, request, folder)
        hook = f"blocks.{layers // 2}.{HOOKS[2]}"
        raw["extract"]["hooks"] = list(request.hooks) or [hook]
        if not request.hooks:
            notes.append(f"hook: {hook}, the middle of {layers} layers (--hook for another)")
    elif request.hooks:
        raw["extract"]["hooks"] = list(request.hooks)
    _use_hooks(raw)
    return notes


def _use_hooks(raw: Any) -> None:
    """Move untrained_hooks and cells whose hook is gone to hooks that the study has."""
    hooks = raw["extract"]["hooks"]
    untrained = [h for h in raw["extract"].get("untrained_hooks", []) if h in hooks]
    if "untrained_hooks" in raw["extract"]:
        untrained = untrained or hooks[:1]
        raw["extract"]["untrained_hooks"] = untrained
    for cell in raw["cells"].values():
        hook = cell.get("hook") or hooks[0]
        if on_random_weights(hook):
            if untrained and model_hook(hook) not in untrained:
                cell["hook"] = UNTRAINED + untrained[0]
        elif hook not in hooks:
            del cell["hook"]


def _text_source(request: StudyRequest, folder: Path) -> dict[str, Any]:
    for path in request.text:
        if not path.is_file():
            raise StudyError(f"--text {path}: no such file")
    source: dict[str, Any] = {
        "kind": "files",
        "files": {os.path.relpath(path, folder): sha256_file(path) for path in request.text},
    }
    if request.columns:
        source["columns"] = list(request.columns)
    if request.label:
        source["label"] = request.label
    return source


def _use_model(raw: Any, request: StudyRequest, folder: Path) -> int:
    """Put the model into `raw`; its number of layers."""
    assert request.model is not None
    path = Path(request.model)
    if path.is_dir():
        config = read_json(path / "config.json")
        source: dict[str, Any] = {
            "kind": "local",
            "path": os.path.relpath(path, folder),
            "sha256": model_digest(path),
        }
        layers = config.get("num_hidden_layers") or config.get("n_layer")
        positions = config.get("max_position_embeddings") or config.get("n_positions") or CONTEXT
        raw["extract"]["context"] = min(positions, CONTEXT)
    elif request.revision and request.d_model and request.n_layers:
        source = {"kind": "hub", "name": request.model, "revision": request.revision,
                  "d_model": request.d_model, "n_layers": request.n_layers}  # fmt: skip
        layers = request.n_layers
        raw["extract"]["context"] = CONTEXT
    else:
        raise StudyError(
            f"--model {request.model}: no such folder; for a model on the hub give --revision (a "
            "commit), --d-model and --n-layers too"
        )
    raw["subject"]["source"] = source
    raw["subject"].ca.items.pop("source", None)  # a remark on the former subject
    raw["subject"].pop("training", None)
    return int(layers)


def pin_inputs(folder: Path) -> list[str]:
    """Renew the hashes of a study's files, labels, prompts, model and SAEs; the changes by line."""
    path = folder / "params.yaml"
    read_yaml(path)
    yaml, raw = _open(path)
    changes = []
    for key, entry, field, digest in _pins(raw, folder):
        if digest != entry.get(field):
            changes.append(f"{key}: {entry.get(field)} → {digest}")
            entry[field] = digest
    if changes:
        _write(yaml, raw, path)
    return changes


def _pins(raw: Any, folder: Path) -> Iterator[tuple[str, Any, str, str]]:
    """(key, mapping, field of it, SHA-256 today) of each pin; StudyError for a missing input."""
    source = raw["corpus"]["source"]
    if source["kind"] == "files":
        for name in source["files"]:
            path = _file(folder / name, "corpus.source.files")
            yield f"corpus.source.files.{name}", source["files"], name, sha256_file(path)
    model = raw["subject"]["source"]
    if model["kind"] == "local":
        if not (folder / model["path"]).is_dir():
            raise StudyError(f"subject.source.path: {folder / model['path']} is missing")
        yield "subject.source.sha256", model, "sha256", model_digest(folder / model["path"])
    labels = (raw.get("evaluate") or {}).get("concepts")
    prompts = (raw.get("judge") or {}).get("prompts") or {}
    for key, entry in [
        *([("evaluate.concepts", labels)] if labels else []),
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


def _open(path: Path) -> tuple[YAML, Any]:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    return yaml, yaml.load(path.read_text(encoding="utf-8"))


def _write(yaml: YAML, raw: Any, path: Path) -> None:
    text = StringIO()
    yaml.dump(raw, text)
    write_text(path, text.getvalue())
