"""The command line: `sae-repro --help`.

What a user can mend is said in one line per fault, with exit code 2 and no traceback.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sae_repro.cli.metrics import metrics as list_metrics
from sae_repro.errors import StudyError

if TYPE_CHECKING:
    from sae_repro.autoencoders import SAE

app = typer.Typer(
    help="Which sparse autoencoder gives the best features, and would you get the same table "
    "tomorrow? `dvc repro` regenerates every number; these commands stand around it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StudyFolder = Annotated[Path, typer.Argument(help="Folder that holds params.yaml.")]


@app.command()
def check(
    study: StudyFolder = Path(),
    schema: Annotated[
        bool, typer.Option("--schema", help="List every key, its type, default and meaning.")
    ] = False,
) -> None:
    """Validate a study before any compute is spent: params.yaml and its pinned inputs.

    Where there is a tune/params.yaml, every corner of what it searches must be a sensible cell.

    Example: sae-repro check studies/gpt2-openwebtext
    """
    from sae_repro import params, pins
    from sae_repro.cli.describe import schema_lines, summary

    if schema:
        typer.echo("\n".join(schema_lines()))
        return
    loaded = params.load(study / "params.yaml")
    pins.check_inputs(loaded, study)
    typer.echo(summary(loaded))
    if (study / "tune" / "params.yaml").is_file():
        from sae_repro.tune.space import load_tune

        tune, corners = load_tune(study)
        pins.check_inputs(corners, study)
        typer.echo(f"ok: tune, {tune.trials} trials over {', '.join(tune.recipes)}")


@app.command()
def cells(study: StudyFolder = Path()) -> None:
    """List a study's cells: what each is, and whether it is trained and evaluated.

    Example: sae-repro cells
    """
    from sae_repro import params
    from sae_repro.cli.describe import cells_table

    typer.echo(cells_table(params.load(study / "params.yaml"), study))


app.command("metrics")(list_metrics)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the study: studies/NAME is made.")],
    from_: Annotated[
        Path, typer.Option("--from", help="Study whose params.yaml is the start.")
    ] = Path(),
    text: Annotated[
        list[Path] | None, typer.Option(help="Text file (txt, jsonl, csv, parquet); repeatable.")
    ] = None,
    column: Annotated[list[str] | None, typer.Option(help="Text column; repeatable.")] = None,
    label: Annotated[str | None, typer.Option(help="Column with each document's class.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Hugging Face folder, or name on the hub.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Hub model: commit, 40 hex digits.")] = None,
    d_model: Annotated[int | None, typer.Option(help="Hub model: residual stream width.")] = None,
    n_layers: Annotated[int | None, typer.Option(help="Hub model: number of blocks.")] = None,
    hook: Annotated[list[str] | None, typer.Option(help="Hook to extract; repeatable.")] = None,
) -> None:
    """Make another study on your own text or model, inputs pinned by their content.

    Run it in the repository's root. Examples:

    sae-repro new news --text news.csv --column title --column body

    sae-repro new mine --text stories.jsonl --model ../my-model --hook blocks.2.hook_resid_post
    """
    from sae_repro.cli.making import Wish, make_study

    wish = Wish(
        text=tuple(text or ()),
        columns=tuple(column or ()),
        label=label,
        model=model,
        revision=revision,
        d_model=d_model,
        n_layers=n_layers,
        hooks=tuple(hook or ()),
    )
    for line in make_study(name, from_, wish):
        typer.echo(line)


@app.command()
def pin(study: StudyFolder = Path()) -> None:
    """Write the SHA-256 of a study's files and model folder into its params.yaml.

    Example: sae-repro pin studies/news   (after you changed news.csv on purpose)
    """
    from sae_repro.cli.making import pin_inputs

    changes = pin_inputs(study)
    typer.echo("\n".join(changes) if changes else "nothing to change: all pins are right")


@app.command()
def adopt(
    trial: Annotated[
        list[int] | None, typer.Option(help="Number of a trial; repeatable. Default: the best.")
    ] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="Every trial on the front.")] = False,
    prefix: Annotated[str, typer.Option(help="Cells are named PREFIX-recipe-number.")] = "tuned",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the diff and write nothing.")
    ] = False,
    study: Annotated[Path, typer.Option(help="Folder that holds params.yaml.")] = Path(),
) -> None:
    """Make cells in params.yaml of an Optuna study's trials (tune/trials.csv).

    A following `dvc repro` takes what the trial trained and evaluated from the store. Examples:

    sae-repro adopt --pareto --dry-run

    sae-repro adopt --trial 17 --trial 23
    """
    from sae_repro.cli.adopting import adopt as lines_of

    for line in lines_of(study, trial or (), pareto=pareto, prefix=prefix, dry_run=dry_run):
        typer.echo(line)


@app.command()
def track(
    study: StudyFolder = Path(),
    prune: Annotated[
        bool, typer.Option("--prune", help="Then delete this study's superseded runs there.")
    ] = False,
    commit: Annotated[
        str | None, typer.Option(help="Send nothing: list the runs that a commit recorded.")
    ] = None,
) -> None:
    """Send to MLflow what it lacks of a study's results; safe to repeat.

    Where to: MLFLOW_TRACKING_URI, or mlflow.db in the repository's root (`sae-repro ui` shows it).
    """
    from sae_repro.cli import tracking

    told = tracking.track(study, prune=prune) if commit is None else tracking.runs_of(study, commit)
    for line in told:
        typer.echo(line)


@app.command()
def ui(
    study: StudyFolder = Path(),
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; another if it is taken.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open a browser where there is a screen.")] = True,
) -> None:
    """Open MLflow on the study's charts; Ctrl-C ends it.

    Served from this machine to itself, or, with MLFLOW_TRACKING_URI of a server, by that server.
    """
    from sae_repro import params
    from sae_repro.track.ui import show

    loaded = params.load(study / "params.yaml")
    show(study, study / loaded.root, loaded.track.experiment, port, browser=browser)


@app.command()
def verify(
    other: Annotated[Path, typer.Argument(help="The same study's folder in another checkout.")],
    study: Annotated[Path, typer.Option(help="This checkout's study folder.")] = Path(),
    rtol: Annotated[float, typer.Option(help="Tolerance for results of another machine.")] = 1e-4,
) -> None:
    """Compare artifacts/ and reports/ with another checkout's, bit for bit.

    Exit code 0: identical. 1: not, and each differing file is named with the place.
    """
    from sae_repro.verify import verify as compare

    verdict = compare(study, other)
    for d in verdict.differences:
        typer.echo(f"{d.file}: {d.where}")
    if not verdict.differences:
        typer.echo(f"identical: {verdict.files} files, {verdict.size:,} bytes")
        return
    equal = verdict.within(rtol)
    typer.echo(
        f"{len(verdict.differences)} of {verdict.files} common files differ: "
        + (f"equal within {rtol:g}, not to the bit" if equal else f"not equal within {rtol:g}")
    )
    raise typer.Exit(1)


@app.command()
def deps(
    pipelines: Annotated[list[Path] | None, typer.Argument(help="Default: all of them.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Correct them.")] = False,
) -> None:
    """Compare the code that stages depend on in dvc.yaml with the code that they import.

    Run it in the repository's root. Exit code 1 where they differ, and --write does not mend it.
    """
    from sae_repro.cli.deps import PIPELINES, update

    lines = list(update(pipelines or PIPELINES, write=write))
    typer.echo("\n".join(lines) or "every stage depends on the code that it imports")
    raise typer.Exit(1 if lines and not write else 0)


@app.command()
def export(
    cell: Annotated[str, typer.Argument(help="Name of a trained cell, or a folder with an SAE.")],
    format: Annotated[
        Literal["saelens", "dictionary_learning", "sparsify"],
        typer.Option(help="Library that shall read it; sparsify holds TopK only."),
    ],
    to: Annotated[Path, typer.Option(help="Folder to write: a new or an empty one.")],
    study: Annotated[Path, typer.Option(help="Folder that holds params.yaml.")] = Path(),
) -> None:
    """Write an SAE as another library's folder, where it encodes and decodes as it does here.

    Run it in the study's folder. Examples:

    sae-repro export topk-x8-k16 --format sparsify --to for-sparsify

    sae-repro export downloads/their-sae --format dictionary_learning --to for-others
    """
    from sae_repro.autoencoders.interchange import export as write

    sae = _own_or_foreign(cell, study)
    write(sae, to, format)
    typer.echo(f"{to}: {format}, {_described(sae)}")


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="Folder with an SAE, or RELEASE:SAE_ID.")],
    to: Annotated[Path, typer.Option(help="Folder to write: a new or an empty one.")],
) -> None:
    """Turn another library's SAE into a folder like those of artifacts/train.

    A folder is known by its files: SAELens's (cfg.json, sae_weights.safetensors),
    dictionary_learning's (config.json, ae.pt) or sparsify's (cfg.json, sae.safetensors).
    RELEASE:SAE_ID is fetched by SAELens's names from the hub. Decoder rows become unit. Examples:

    sae-repro import downloads/their-sae --to saes/theirs

    sae-repro import gpt2-small-res-jb:blocks.8.hook_resid_pre --to saes/gpt2-8
    """
    from sae_repro.autoencoders import save
    from sae_repro.autoencoders.interchange import import_release, import_sae, new_folder

    # before anything is fetched: what can't be written need not be
    with new_folder(to) as folder:
        release, colon, sae_id = source.partition(":")
        fetch = colon and not Path(source).exists()
        sae = import_release(release, sae_id) if fetch else import_sae(Path(source))
        save(sae, folder)
    typer.echo(f"{to}: {_described(sae)}")


def _own_or_foreign(cell: str, study: Path) -> "SAE":
    """The SAE of a cell of `study`, or of a folder in any format."""
    from sae_repro.autoencoders import load
    from sae_repro.autoencoders.interchange import import_sae
    from sae_repro.cellstore import members

    folder = study / "artifacts" / "train" / cell
    if (folder / "cfg.json").is_file():
        return load(folder)
    if Path(cell).is_dir():
        return import_sae(Path(cell))
    if members(folder) != ["."]:
        raise StudyError(f"{cell} has several SAEs: name one, such as {cell}/{members(folder)[0]}")
    raise StudyError(
        f"{cell}: neither a folder, nor a cell with an SAE in {folder.parent}; `sae-repro cells` "
        "lists the cells and which are trained"
    )


def _described(sae: "SAE") -> str:
    metadata = sae.metadata or {}
    hook = metadata.get("hook_name") or metadata.get("submodule_name")
    return f"{sae.architecture}, D {sae.d_in}, K {sae.d_sae}" + (f", hook {hook}" if hook else "")


def main() -> None:
    """Entry point of `sae-repro`."""
    try:
        app()
    except StudyError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
