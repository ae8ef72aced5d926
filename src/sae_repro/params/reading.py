"""params.yaml from disk, checked."""

from pathlib import Path
from typing import Any

from sae_repro.params.study import Study
from sae_repro.params.validation import check_section
from sae_repro.params.yaml_files import read_yaml


def load(path: Path | str = "params.yaml") -> Study:
    """The checked study in `path`; StudyError with one line per fault."""
    return parse(read_yaml(Path(path)), source=str(path))


def parse(raw: dict[str, Any], *, source: str = "params.yaml") -> Study:
    """The checked study in `raw`, a mapping as YAML gives it."""
    return check_section(Study, raw, source=source)
