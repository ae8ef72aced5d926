"""params.yaml from disk: YAML 1.2 (`1e-2` is a number, `on` a word), merges resolved."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sae_repro.errors import StudyError
from sae_repro.params.study import Study
from sae_repro.params.validation import check_section


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
