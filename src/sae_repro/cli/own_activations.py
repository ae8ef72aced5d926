"""A new study on activations of one's own: a grid that fits their number and width."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.cli.bringing import bring, no_file
from sae_repro.cli.grid import Fit, cells, lines, rows, sections
from sae_repro.cli.schema import modeline
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.params import GIVEN, ActivationsSource
from sae_repro.readers.given import read_given

if TYPE_CHECKING:
    from sae_repro.cli.new import StudyRequest

SCHEMA = "../../params.schema.json"
SHARES = {"validation": 0.1, "calibration": 0.05}


def own_activations(name: str, request: "StudyRequest", folder: Path) -> tuple[str, list[str]]:
    """(params.yaml of the study, lines to show); files are copied into `folder` once all fits."""
    for path in request.activations:
        if not path.is_file():
            raise StudyError(f"--activations {path}: {no_file(path)}")
    pins = {str(path.absolute()): sha256_file(path) for path in request.activations}
    given = read_given(ActivationsSource(kind="activations", files=pins), Path())
    counts = {split: int(share * given.rows) for split, share in SHARES.items()}
    counts["train"] = given.rows - sum(counts.values())
    fit = Fit(
        d_model=given.width, n_layers=1, positions=1, tokens=counts, documents=counts, longest=1,
        hooks=(GIVEN,),
    )  # fmt: skip
    if not all(counts.values()) or counts["train"] < fit.batch_size:
        raise StudyError(
            f"--activations: {given.rows:,} rows; give {2 * fit.batch_size} or more, of which "
            f"{', '.join(f'{share:.0%} {split}' for split, share in SHARES.items())} are held out"
        )
    files, notes = {}, []
    for path in request.activations:
        place, more = bring(path, folder)
        files[place] = pins[str(path.absolute())]
        notes += more
    values: dict[str, Any] = {
        "corpus": {"source": {"kind": "activations", "files": files}, **SHARES},
        "subject": {"source": {"kind": "none"}},
        **sections(fit, name=name, trained_here=False),
    }
    for key in ("untrained_hooks", "context"):
        del values["extract"][key]
    values |= {"evaluate": {}, "judge": {}}
    recipes, grid = cells(fit)
    grid = {cell: of for cell, of in grid.items() if "hook" not in of}
    text = [
        f"# {modeline(SCHEMA)}",
        f"# Study {name}: activations, {given.rows:,} rows of D = {given.width}, of no language "
        "model.",
        "# Every key: sae-repro check --schema",
        "root: ../..", "seed: 0", "", "compute: {bits: portable}", "",
        *lines(values), "", "recipes:", *rows(recipes), "", "cells:", *rows(grid), "",
    ]  # fmt: skip
    notes.append(
        f"activations: {given.rows:,} rows, D = {given.width}; each row is a document of its own "
        "(corpus.source.table says otherwise)"
    )
    return "\n".join(text), notes
