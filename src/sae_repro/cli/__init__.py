"""The command line: `sae-repro --help`.

A fault in a study prints one line, with exit code 2 and no traceback.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sae_repro.cli.adopting import adopt
from sae_repro.cli.arguments import check_arguments
from sae_repro.cli.claims import claims
from sae_repro.cli.code_changes import code
from sae_repro.cli.consensus import consensus
from sae_repro.cli.correlating import correlations
from sae_repro.cli.costing import costs
from sae_repro.cli.difference import diff
from sae_repro.cli.explaining import explain
from sae_repro.cli.init import init
from sae_repro.cli.metrics import metrics as list_metrics
from sae_repro.cli.output import echo, help_of
from sae_repro.cli.overlapping import overlap
from sae_repro.cli.parallel import parallel
from sae_repro.cli.pipelines import pipelines
from sae_repro.cli.planning import plan
from sae_repro.cli.results import track, tune_ui, ui
from sae_repro.cli.saes import export, import_
from sae_repro.cli.steering import steer
from sae_repro.cli.store import store
from sae_repro.cli.truncating import truncations
from sae_repro.cli.version import options
from sae_repro.errors import StudyError, one_line, print_any_text
from sae_repro.files import disk_fault

app = typer.Typer(
    help="Compare sparse autoencoders on a language model's activations, reproducibly. `dvc repro` "
    "regenerates every number of a study; these commands make, check, tune and share studies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StudyFolder = Annotated[Path, typer.Argument(help="Folder that holds params.yaml.")]


def check(
    study: StudyFolder = Path(),
    schema: Annotated[
        bool, typer.Option("--schema", help="List every key, its type, default and meaning.")
    ] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also run a batch: norms, first tokens, time, disk, memory."),
    ] = False,
) -> None:
    """Check a study before any compute is spent on it.

    Checks params.yaml, its pinned inputs and its dvc.yaml; with a tune/params.yaml also every
    corner of the search space, which must be a valid cell.

    With --probe one batch goes through the model, which takes a minute or two. It warns of massive
    activations, says which first token suits the rows best, and estimates what the study will take.

    Examples:

    sae-repro check studies/gpt2-openwebtext

    sae-repro check studies/news --probe
    """
    from sae_repro.cli.checking import check_lines
    from sae_repro.cli.describe import schema_lines

    for line in schema_lines() if schema else check_lines(study, probe=probe):
        echo(line)


def schema(to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path()) -> None:
    """Write the schemas by which editors complete params.yaml.

    These are params.schema.json and tune.schema.json. Both are in the repository's root already:
    run this there after a change of sae_repro.params. A params.yaml names its schema in its first
    line:

    # yaml-language-server: $schema=../../params.schema.json
    """
    from sae_repro.cli.schema import write_schemas

    for line in write_schemas(to):
        echo(line)


def cells(study: StudyFolder = Path()) -> None:
    """List a study's cells, and which are trained and evaluated.

    Once activations are extracted, it also lists their norms at each hook.

    Example: sae-repro cells
    """
    from sae_repro import params
    from sae_repro.cli.describe import cells_table, norms_table

    echo(cells_table(params.load(study / "params.yaml"), study))
    if norms := norms_table(study):
        echo(f"\n{norms}")


def new(
    name: Annotated[
        str | None, typer.Argument(help="Name of the study: studies/NAME is made.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Template, or a study's folder or file. Default: the root."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the templates.")] = False,
    text: Annotated[
        list[Path] | None, typer.Option(help="Text file (txt, jsonl, csv, parquet); repeatable.")
    ] = None,
    activations: Annotated[
        list[Path] | None, typer.Option(help="File of activations [N, D], no text; repeatable.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "--data", help="Data set of the hub, as text.")
    ] = None,
    dataset_revision: Annotated[
        str | None, typer.Option(help="Data set: commit, branch or tag. Default: the newest.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    documents: Annotated[
        int | None,
        typer.Option(min=1, help="Documents to read. Default: all; of a data set 20,000."),
    ] = None,
    column: Annotated[list[str] | None, typer.Option(help="Text column; repeatable.")] = None,
    label: Annotated[str | None, typer.Option(help="Column with each document's class.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Hugging Face folder, or name on the hub. Default: trained on the text."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Hub model: commit, branch or tag. Default: the newest.")
    ] = None,
    d_model: Annotated[
        int | None,
        typer.Option(
            min=1, help="Residual stream width of a hub model, if the hub can't be asked."
        ),
    ] = None,
    n_layers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of blocks of a hub model, if the hub can't be asked."),
    ] = None,
    hook: Annotated[list[str] | None, typer.Option(help="Hook to extract; repeatable.")] = None,
) -> None:
    """Make a study in studies/: a copy, or one of your own data.

    A study of your own text, model or activations gets a grid of cells that fits them. Inputs are
    pinned: files by their content, models and data sets of the hub by their commit. Files from
    outside the repository are copied into the study. Run it in the repository's root.

    Examples:

    sae-repro new owt --from gpt2-openwebtext

    sae-repro new news --text news.csv --column title --column body

    sae-repro new mine --text stories.jsonl --model ../my-model --hook blocks.2.hook_resid_post

    sae-repro new gpt2 --model gpt2 --data openwebtext-10k

    sae-repro new mine --activations hidden_states.pt
    """
    from sae_repro.cli.new import StudyRequest, make_study, template_lines

    if list_:
        echo("\n".join(template_lines()))
        return
    if name is None:
        raise StudyError("NAME: missing; sae-repro new NAME, or sae-repro new --list")
    request = StudyRequest(
        text=tuple(text or ()),
        activations=tuple(activations or ()),
        columns=tuple(column or ()),
        label=label,
        dataset=dataset,
        dataset_revision=dataset_revision,
        split=split,
        documents=documents,
        model=model,
        revision=revision,
        d_model=d_model,
        n_layers=n_layers,
        hooks=tuple(hook or ()),
    )
    for line in make_study(name, from_, request):
        echo(line)


def pin(study: StudyFolder = Path()) -> None:
    """Write the SHA-256 of a study's inputs into params.yaml.

    Inputs are the study's files and its model's folder. Run it after you changed one on purpose.

    Example: sae-repro pin studies/news
    """
    from sae_repro.cli.studies import pin_inputs

    changes = pin_inputs(study)
    echo("\n".join(changes) if changes else "nothing to change: all pins are right")


def verify(
    other: Annotated[
        Path | None,
        typer.Argument(help="The study's folder in another checkout. Default: the recorded study."),
    ] = None,
    study: Annotated[Path, typer.Option(help="This checkout's study folder.")] = Path(),
    rtol: Annotated[float, typer.Option(min=0, help="Relative tolerance of numbers.")] = 1e-4,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also a line for each file that differs.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Add this machine to reports/machines.csv.")
    ] = False,
) -> None:
    """Compare a study's results with the recorded ones.

    The recorded ones are those of git's HEAD, or of another checkout. Prints one line: identical,
    or what differs, by how much, and the likely cause.

    Exit code 0: identical, or equal within --rtol; 1: different; 2: they can't be compared.

    Examples:

    sae-repro verify --verbose

    sae-repro verify ../second-clone --rtol 1e-3
    """
    from sae_repro.cli.verifying import verify as lines_of

    lines, code = lines_of(study, other, rtol, verbose=verbose, record=record)
    echo("\n".join(lines))
    raise typer.Exit(code)


app.callback()(options)
COMMANDS: dict[str, Callable[..., None]] = {
    # make and check a study
    "init": init,
    "new": new,
    "pin": pin,
    "check": check,
    "plan": plan,
    "schema": schema,
    # its results
    "cells": cells,
    "costs": costs,
    "metrics": list_metrics,
    "claims": claims,
    "verify": verify,
    "diff": diff,
    "track": track,
    "ui": ui,
    # a search
    "tune-ui": tune_ui,
    "adopt": adopt,
    # latents
    "explain": explain,
    "steer": steer,
    "truncations": truncations,
    "overlap": overlap,
    "correlations": correlations,
    "consensus": consensus,
    # other libraries
    "import": import_,
    "export": export,
    # machines
    "parallel": parallel,
    "store": store,
    # the repository
    "pipelines": pipelines,
    "code": code,
}
"""In the order in which a study needs them, which `--help` keeps."""
for name, command in COMMANDS.items():
    app.command(name, help=help_of(command))(command)


def main() -> None:
    """Entry point of `sae-repro`."""
    print_any_text()
    try:
        check_arguments(sys.argv[1:])
        app()
    except StudyError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except NotADirectoryError as error:
        print(
            f"{one_line(str(error.filename))}: a part of this path is a file, not a folder; name "
            "another place",
            file=sys.stderr,
        )
        sys.exit(2)
    except Exception as error:  # libraries have errors of their own for a full disk
        if (line := disk_fault(error)) is None:
            raise
        print(line, file=sys.stderr)
        sys.exit(2)
