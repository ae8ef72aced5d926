"""The command `new`: a study from another one or a template, or on text and a model of one's own.

A copy keeps its cells. Text or a model of one's own gets a grid that fits it (`cli.grid`).
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_repro.cli.bringing import bring
from sae_repro.cli.own_inputs import check_own_inputs
from sae_repro.cli.own_models import check_own_models
from sae_repro.cli.pipelines import PIPELINE, check_place, seen_from
from sae_repro.cli.schema import modeline
from sae_repro.cli.studies import check_but_pins, open_yaml, yaml_text
from sae_repro.cli.templates import described, start_of, templates
from sae_repro.errors import StudyError, shown
from sae_repro.files import write_text
from sae_repro.params import EMBEDDINGS, UNTRAINED, load, model_hook, weights_of
from sae_repro.preflight import check_inputs

SCHEMA = "../../params.schema.json"


@dataclass(frozen=True)
class StudyRequest:
    """Text, model and hooks of a new study; empty fields are not asked for."""

    text: tuple[Path, ...] = ()
    activations: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    label: str | None = None
    dataset: str | None = None
    dataset_revision: str | None = None
    split: str = "train"
    documents: int | None = None
    model: str | None = None
    revision: str | None = None
    d_model: int | None = None
    n_layers: int | None = None
    hooks: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it names text, a model, or activations."""
        return bool(self.text or self.dataset or self.model or self.activations)


def template_lines() -> Iterator[str]:
    """A line for each template: its name and what it is."""
    known = templates()
    width = max(map(len, known), default=0)
    for name, path in known.items():
        yield f"{name:<{width}}  {described(path)}"


def make_study(name: str, start: str | None, request: StudyRequest) -> Iterator[str]:
    """Make studies/`name` in the current folder; lines to show.

    From `start`, a template's name or a study's folder or file (None: the root study), or, where
    `request` names text or a model, of a grid of its own. Nothing is left of it if that fails.
    """
    folder = _free_folder(name)
    check_place(Path())
    _check_request(start, request)
    try:
        if request.activations:
            from sae_repro.cli.own_activations import own_activations

            text, notes = own_activations(name, request, folder)
        elif request.own:
            from sae_repro.cli.own_text import own_study

            text, notes = own_study(name, request, folder)
        else:
            text, notes = _copy(name, start_of(start or "."), request.hooks, folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "params.yaml", text)
        study = load(folder / "params.yaml")
        pipeline = PIPELINE.read_text(encoding="utf-8")
        write_text(folder / PIPELINE, seen_from(study.root, pipeline))
        check_inputs(study, folder)
        check_own_models(study, folder)
        check_own_inputs(study, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    yield from notes
    yield f"next: dvc repro {folder}/dvc.yaml"


def _free_folder(name: str) -> Path:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,79}", name):
        raise StudyError(
            f"NAME = {shown(name)}: lower-case letters, digits, - and _ only, at most 80"
        )
    if name == "templates":
        raise StudyError("NAME = templates: the folder of templates; choose another name")
    folder = Path("studies") / name
    if not Path("dvc.yaml").is_file() or not Path("stages").is_dir():
        raise StudyError("run this in the repository's root, where dvc.yaml and stages/ are")
    if folder.exists():
        raise StudyError(f"{folder} exists already; choose another name")
    return folder


def _check_request(start: str | None, request: StudyRequest) -> None:
    if (request.columns or request.label) and not (request.text or request.dataset):
        raise StudyError("--column and --label describe a --text file or --dataset; name one")
    if request.text and request.dataset:
        raise StudyError("--text and --dataset: name one of them, a study has one text")
    if request.activations and (request.text or request.dataset or request.model or request.hooks):
        raise StudyError("--activations: such a study has no text, model or hooks; name files only")
    if request.model and not (request.text or request.dataset):
        raise StudyError(f"--model {request.model}: name its --text or --dataset, too")
    if start is not None and request.own:
        raise StudyError(
            f"--from {start}: a copy keeps its text, model and cells, which fit no others; "
            "leave --from out for a grid that fits, or edit the copy's params.yaml"
        )


def _copy(name: str, path: Path, hooks: tuple[str, ...], folder: Path) -> tuple[str, list[str]]:
    """(params.yaml of a copy of that at `path`, lines to show)."""
    check_but_pins(path)
    yaml, raw = open_yaml(path)
    raw["root"] = "../.."
    start = f"{modeline(SCHEMA)}\nStudy {name}, a copy of {_called(path)}."
    raw.yaml_set_start_comment(f"{start} Every key: sae-repro check --schema")
    if hooks:
        raw["extract"]["hooks"] = list(hooks)
        _use_hooks(raw)
    notes = [f"made {folder} from {_called(path)}", *_bring_inputs(raw, path.parent, folder)]
    return yaml_text(yaml, raw), notes


def _called(path: Path) -> str:
    if path in templates().values():
        return f"the template {path.stem}"
    return "the root study" if path == Path("params.yaml") else path.as_posix()


def _bring_inputs(raw: Any, base: Path, folder: Path) -> list[str]:
    """Name every pinned input from `folder` instead of from `base`; lines to show."""
    notes: list[str] = []

    def moved(place: str, *, model: bool = False) -> str:
        path = base / place
        if not path.exists():
            raise StudyError(f"{path}: missing; the study to copy names it")
        place, lines = bring(path, folder, model=model)
        notes.extend(lines)
        return place

    source = raw["corpus"]["source"]
    if source["kind"] in ("files", "activations"):
        source["files"] = {moved(file): pin for file, pin in dict(source["files"]).items()}
    if table := source.get("table"):
        table["path"] = moved(table["path"])
    model = raw["subject"]["source"]
    if model["kind"] in ("local", "gguf"):
        model["path"] = moved(model["path"], model=True)
    labels = (raw.get("evaluate") or {}).get("concepts")
    prompts = (raw.get("judge") or {}).get("prompts") or {}
    worlds = [w for w in (raw.get("control") or {}).get("worlds") or [] if not isinstance(w, str)]
    for entry in [*([labels] if labels else []), *prompts.values(), *worlds]:
        entry["path"] = moved(entry["path"])
    for cell in _choices(raw):
        if "import" in cell and (base / cell["import"]).is_dir():
            cell["import"] = moved(cell["import"], model=True)
    return notes


def _choices(raw: Any) -> list[Any]:
    """The mappings of choices: cells, and the recipes that they name."""
    return [*raw["cells"].values(), *raw.get("recipes", {}).values()]


def _use_hooks(raw: Any) -> None:
    """Move untrained_ and embeddings_hooks to hooks that the study has, and cells on hooks gone.

    A cell that becomes another one by that is refused when the study is checked.
    """
    hooks = raw["extract"]["hooks"]
    random: dict[str, list[str]] = {}
    for prefix in (UNTRAINED, EMBEDDINGS):
        key = f"{prefix[:-1]}_hooks"
        if key in raw["extract"]:
            random[prefix] = [h for h in raw["extract"][key] if h in hooks] or hooks[:1]
            raw["extract"][key] = random[prefix]
    for cell in _choices(raw):
        hook = cell.get("hook") or hooks[0]
        if prefix := weights_of(hook):
            if random.get(prefix) and model_hook(hook) not in random[prefix]:
                cell["hook"] = prefix + random[prefix][0]
        elif hook not in hooks:
            del cell["hook"]
