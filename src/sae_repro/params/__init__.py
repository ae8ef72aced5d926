"""params.yaml: one schema, read and checked before anything runs.

    study = load("params.yaml")
    study.cells["topk-x8-k16"].k

params.yaml is YAML 1.2 (`1e-2` is a number, `on` a word) with anchors and merges.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sae_repro.errors import StudyError
from sae_repro.params.base import S, Section
from sae_repro.params.cell import Cell
from sae_repro.params.hooks import HOOKS, UNTRAINED, layer_of, model_hook, on_random_weights
from sae_repro.params.judge import ANSWERS, Judge
from sae_repro.params.sections import (
    Compare,
    ConceptLabels,
    Control,
    Corpus,
    Evaluate,
    Extract,
    FilesSource,
    HubSource,
    HubSubject,
    LocalSubject,
    StoriesSource,
    Subject,
    SubjectChoice,
    Track,
    Train,
    TrainedSubject,
    Training,
)
from sae_repro.params.study import Study, shape_problems
from sae_repro.params.tune import Tune

__all__ = [
    "ANSWERS",
    "HOOKS",
    "UNTRAINED",
    "Cell",
    "Compare",
    "ConceptLabels",
    "Control",
    "Corpus",
    "Evaluate",
    "Extract",
    "FilesSource",
    "HubSource",
    "HubSubject",
    "Judge",
    "LocalSubject",
    "Section",
    "StoriesSource",
    "Study",
    "Subject",
    "SubjectChoice",
    "Track",
    "Train",
    "TrainedSubject",
    "Training",
    "Tune",
    "check_section",
    "layer_of",
    "load",
    "model_hook",
    "on_random_weights",
    "parse",
    "read_yaml",
    "shape_problems",
]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML 1.2 file, merges resolved; StudyError with the line where it breaks."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(
            f"{path}: no such file; run in a study's folder, or make a study with `sae-repro new`"
        ) from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    try:
        raw = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise StudyError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise StudyError(f"{path}: holds no mapping of sections (corpus:, subject:, …)")
    return raw


def load(path: Path | str = "params.yaml") -> Study:
    """The checked study in `path`; StudyError with one line per fault."""
    return parse(read_yaml(Path(path)), source=str(path))


def parse(raw: dict[str, Any], *, source: str = "params.yaml") -> Study:
    """The checked study in `raw`, a mapping as YAML gives it."""
    return check_section(Study, raw, source=source)


def check_section(schema: type[S], raw: Any, *, source: str = "params.yaml", within: str = "") -> S:
    """`raw` as a section of type `schema`; `within` is its key, for the errors' first word."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        lines = [line for detail in error.errors() for line in _explain(detail, within)]
        raise StudyError("\n".join(f"{source}: {line}" for line in lines)) from None


_KINDS = {"stories", "files", "hub", "train", "local"}


def _explain(detail: ErrorDetails, within: str) -> list[str]:
    """One fault as `key = value: what is allowed`."""
    parts = [str(part) for part in detail["loc"] if part != "[key]"]
    # pydantic puts the chosen variant's tag into the path: `source.files.columns`
    path = [p for i, p in enumerate(parts) if not (i and parts[i - 1] == "source" and p in _KINDS)]
    key = ".".join([within, *path] if within else path)
    value, message = detail["input"], detail["msg"]
    kind = detail["type"]
    if kind == "value_error":
        text = message.removeprefix("Value error, ")
        return [f"{key}: {line}" if key else line for line in text.split("\n")]
    if kind == "missing":
        return [f"{key}: missing, and it has no default"]
    if kind == "extra_forbidden":
        return [f"{key} = {_short(value)}: unknown key; `sae-repro check --schema` lists all"]
    if kind == "union_tag_invalid":
        context = detail.get("ctx", {})
        tags = context.get("expected_tags")
        return [f"{key}.kind = {context.get('tag')}: allowed are {tags}"]
    if kind == "union_tag_not_found":
        return [f"{key}.kind: missing, it says which kind of {key.split('.')[0]} this is"]
    allowed = message.removeprefix("Input should be ").replace("Input should have", "allowed:")
    return [
        f"{key} = {_short(value)}: must be {allowed}"
        if allowed != message
        else f"{key} = {_short(value)}: {message}"
    ]


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "…"
