"""Studies to start from: templates in studies/templates, and other studies' params.yaml."""

from pathlib import Path

from sae_repro.cli import outside
from sae_repro.errors import StudyError


def template_folder() -> Path:
    """The folder of templates: of the repository in which the command runs, or the package's."""
    here = outside.TEMPLATES
    return here if here.is_dir() else outside.template_folder() / here


def templates() -> dict[str, Path]:
    """The params.yaml of each template, by its name."""
    return {path.stem: path for path in sorted(template_folder().glob("*.yaml"))}


def described(path: Path) -> str:
    """The first sentence of a template: its first comment behind the editor's line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").strip()
        if text and not text.startswith("yaml-language-server"):
            return text
    return ""


def start_of(name: str) -> Path:
    """The params.yaml that `name` means: a template, a study's folder, or a file."""
    known = templates()
    if name in known:
        return known[name]
    path = Path(name)
    found = path if path.suffix in (".yaml", ".yml") else path / "params.yaml"
    if not found.is_file():
        raise StudyError(
            f"--from {name}: no such file as {found}, and no such template; templates are "
            f"{', '.join(known) or 'none here'}"
        )
    return found
