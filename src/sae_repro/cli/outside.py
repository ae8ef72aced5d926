"""Studies outside a checkout, in a folder with git and DVC of its own: made, and renewed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sae_repro.cli.pipelines import PIPELINE, TUNING, copies, copy_of
from sae_repro.cli.schema import modeline, write_schemas
from sae_repro.cli.studies import open_yaml, yaml_text
from sae_repro.errors import StudyError, did_you_mean
from sae_repro.files import write_text
from sae_repro.installation import check_installation, is_outside, record, stages_of
from sae_repro.params import Cell, load, read_yaml
from sae_repro.params.axes import readers
from sae_repro.params.recipes import RECIPE, merged
from sae_repro.preflight import check_inputs

EMBEDDED = "embedded"
TEMPLATES = Path("studies/templates")
SEARCH = Path("tune/params.yaml")
PLOTS = Path(".dvc/plots")

DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
[plots]
    html_template = plots/page.html
"""

README = """\
# {name}

A study of sparse autoencoders, made by `sae-repro init` ({start}).

    pip install sae-repro=={version}
    pip install -r requirements.lock         # the versions that the recorded numbers follow from
    git add -A && git commit -m "New study"  # dvc exp run needs a commit to start from
    sae-repro check                          # is params.yaml valid?
    dvc repro                                # every number; open reports/index.html
    git add -A && git commit -m "Results"    # what sae-repro verify compares later runs with
    sae-repro ui                             # compare the runs in MLflow

| file | content |
|---|---|
| `params.yaml` | what is studied; `sae-repro check --schema` explains every key |
| `dvc.yaml`, `stages/` | the pipeline; `sae-repro init --renew` writes them again |
| `code/`, `requirements.lock` | code of sae-repro and libraries that the results follow from |
| `reports/` | index.html, an explorer of latents, tables, figures and metrics.json, for git |
| `artifacts/` | everything large; in DVC's cache |

After an upgrade of sae-repro or of a library, `sae-repro init --renew` records what is installed,
and `dvc repro` runs the stages that it decides.
"""


def template_folder() -> Path:
    """The folder with the pipeline and the studies to start from: in the wheel, or the checkout."""
    packed = Path(__file__).with_name("template")
    folder = packed if packed.is_dir() else Path(__file__).resolve().parents[3]
    if not (folder / PIPELINE).is_file():
        raise StudyError(f"{folder}: no {PIPELINE} there; install the wheel of sae-repro again")
    return folder


def starts() -> dict[str, Path]:
    """The params.yaml of each study that `init` can start from, by name."""
    folder = template_folder()
    templates = sorted((folder / TEMPLATES).glob("*.yaml"))
    return {EMBEDDED: folder / "params.yaml", **{path.stem: path for path in templates}}


def make(folder: Path, start: str, *, tune: bool) -> Iterator[str]:
    """Make a study in `folder` from the study or template `start`; lines to show.

    Nothing is left of it if that fails. StudyError for a folder in use, or an unknown start.
    """
    known = starts()
    if start not in known:
        advice = did_you_mean(start, known) or f"; there are {', '.join(known)}"
        raise StudyError(f"--from {start}: no such template{advice}")
    if folder.is_dir() and any(path.name != ".git" for path in folder.iterdir()):
        raise StudyError(f"{folder}: not empty; choose another folder, or --renew the study in it")
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # /proc, whose folders no one makes
        raise StudyError(
            f"{folder}: can't be made ({error.strerror}); name another place"
        ) from None
    try:
        write_text(folder / "params.yaml", _params(known[start].read_text(encoding="utf-8")))
        _copy_claims(known[start].parent, folder)
        yield from _fill(folder, start, tune=tune)
        check_inputs(load(folder / "params.yaml"), folder)
    except BaseException:
        if new:
            shutil.rmtree(folder)
        raise
    yield f"made {folder} from {start}"
    place = shlex.quote(str(folder))
    yield f"next: cd {place} && git add -A . && git commit -m 'New study' && dvc repro"


def _params(text: str) -> str:
    """`text` of a params.yaml as that of a repository's root study."""
    text = re.sub(r"^root: .*$", "root: .", text, count=1, flags=re.M)
    line = f"# {modeline('params.schema.json')}"
    return re.sub(r"\A# yaml-language-server: .*$", line, text, count=1, flags=re.M)


def _copy_claims(source: Path, folder: Path) -> None:
    """Copy the claims that params.yaml in `folder` names from `source`, where it comes from."""
    claims = load(folder / "params.yaml").compare.claims
    if claims is not None:
        write_text(folder / claims.path, (source / claims.path).read_text(encoding="utf-8"))


def _fill(folder: Path, start: str, *, tune: bool) -> Iterator[str]:
    from sae_repro import __version__

    for name in (".gitignore", ".dvcignore"):
        shutil.copy(template_folder() / name, folder / name)
    readme = README.format(name=folder.resolve().name, start=start, version=__version__)
    write_text(folder / "README.md", readme)
    yield from _under_version_control(folder)
    for _ in _write_pipeline(folder, tune=tune):
        pass  # every file is new


def renewed(folder: Path, *, tune: bool) -> Iterator[str]:
    """Record the installed code and libraries in the study at `folder`; a line for each change."""
    if not is_outside(folder) or not (folder / "params.yaml").is_file():
        raise StudyError(
            f"{folder}: no study of `sae-repro init` there (params.yaml, code/version.txt); in a "
            "checkout, `dvc repro` itself sees what changed in src/"
        )
    load(folder / "params.yaml")  # what can't be read can't run on what is renewed either
    changed = list(_write_pipeline(folder, tune=tune))
    yield from (f"renewed {name}" for name in changed)
    yield "next: dvc repro" if changed else "nothing to renew: all is as installed"


def check_version(study: Path) -> None:
    """StudyError where a study of `init` was made with other code or libraries than these."""
    root = study / load(study / "params.yaml").root
    if is_outside(root):
        check_installation(root, stages_of(root))


def _write_pipeline(folder: Path, *, tune: bool) -> Iterator[str]:
    """Write dvc.yaml, stages/, schemas, the templates of plots and the record of the installation;
    what changed, by name.

    params.yaml stays as it is. Studies below `folder` are given copies of the dvc.yaml.
    """
    template = template_folder()
    tune = tune or (folder / TUNING).is_file()
    texts = {}
    for path in (PIPELINE, TUNING) if tune else (PIPELINE,):
        texts[path] = (template / path).read_text(encoding="utf-8")
    for study, path in copies(folder):
        texts[(study / path).relative_to(folder)] = copy_of(texts[path], study, folder)
    for script in sorted((template / "stages").glob("*.py")):
        if tune or script.stem != "tune":
            texts[Path("stages") / script.name] = script.read_text(encoding="utf-8")
    if tune and not (folder / SEARCH).is_file():
        texts[SEARCH] = _search(folder)
    texts |= _plot_templates(folder)
    for path, text in texts.items():
        file = folder / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
            yield path.as_posix()
    list(write_schemas(folder))
    yield from record(folder, stages_of(folder))


def _search(folder: Path) -> str:
    """The text of a tune/params.yaml that searches from those recipes that the study has.

    StudyError where it has none of them.
    """
    yaml, raw = open_yaml(template_folder() / SEARCH)
    searched = raw["tune"]["recipes"]
    named = {name: choices[RECIPE] for name, choices in searched.items()}
    wanted, known = set(named.values()), read_yaml(folder / "params.yaml")["recipes"]
    for name, recipe in named.items():
        if recipe not in known:
            del searched[name]
        else:
            for choice in _unread(searched[name], merged({RECIPE: recipe}, known)):
                del searched[name][choice]
    if not searched:
        raise StudyError(
            f"{folder / 'params.yaml'}: recipes has none of {', '.join(sorted(wanted))}, "
            f"from which the search of --tune starts; add one, or write {folder / SEARCH} yourself"
        )
    return yaml_text(yaml, raw)


def _unread(searched: Iterable[str], recipe: Mapping[str, Any]) -> list[str]:
    """Those of the choices `searched` that nothing reads in a cell of the choices `recipe`."""
    defaults = {name: field.default for name, field in Cell.model_fields.items()}
    reads = {choice: readers(choice) for choice in searched}
    return [
        choice
        for choice, read in reads.items()
        if read is not None and recipe.get(read[0], defaults[read[0]]) not in read[1]
    ]


def _plot_templates(folder: Path) -> dict[Path, str]:
    """The templates that dvc.yaml's plots name, by path from `folder`: they lie in DVC's folder.

    In a DVC repository around the study's, those that are there already are left as they are.
    """
    root = folder.resolve()
    around = next((path for path in (root, *root.parents) if (path / ".dvc").is_dir()), None)
    if around is None:
        raise StudyError(f"{folder}: no DVC repository around it; make one there with `dvc init`")
    return {
        Path(os.path.relpath(path, root)): source.read_text(encoding="utf-8")
        for source in sorted((template_folder() / PLOTS).iterdir())
        if not (path := around / PLOTS / source.name).is_file() or around == root
    }


def _under_version_control(folder: Path) -> Iterator[str]:
    """Make `folder` a git and DVC repository, unless it lies in one already."""
    if shutil.which("git") is None:
        raise StudyError("git: not found; install it, DVC needs it")
    above = [folder.resolve(), *folder.resolve().parents]
    if not any((path / ".git").exists() for path in above):
        _run("git", "init", "-q", folder=folder)
        yield f"{folder}: git repository"
    if not any((path / ".dvc").is_dir() for path in above):
        place = () if (folder / ".git").exists() else ("--subdir",)
        ignored = (folder / ".dvcignore").read_text(encoding="utf-8")
        (folder / ".dvcignore").unlink()  # DVC writes its own, and refuses where there is one
        _run(sys.executable, "-m", "dvc", "init", "-q", *place, folder=folder)
        write_text(folder / ".dvcignore", ignored)
        write_text(folder / ".dvc/config", DVC_CONFIG)
        yield f"{folder}: DVC repository"


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StudyError(f"{' '.join(command[-3:])}: {done.stderr.strip() or done.stdout.strip()}")
