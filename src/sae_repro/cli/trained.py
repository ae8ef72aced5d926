"""The trained SAE that a command is about, and a reader of texts for it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.numerics.kernels import choose
from sae_repro.params import load

if TYPE_CHECKING:
    from sae_repro.latents.of_cell import CellSAE
    from sae_repro.latents.reading import TextReader

CellName = Annotated[
    str,
    typer.Option(help="A trained cell; of one with several seeds CELL/seed-N, else the first."),
]
StudyOption = Annotated[Path, typer.Option(help="Folder that holds params.yaml.")]


def note_unknown(reader: "TextReader", text: str) -> None:
    """Say on standard error how many tokens of `text` the study's tokenizer has no word for.

    StudyError where it has none at all.
    """
    ids, unknown = reader.ids(text), reader.tokenizer.unk_token_id
    n = sum(i == unknown for i in ids)
    if n:
        words = f"token{'s' * (len(ids) > 1)} {'is' if n == 1 else 'are'}"
        typer.echo(
            f"note: {n} of {len(ids)} {words} not in the study's vocabulary, and read as "
            f"{reader.tokenizer.unk_token}",
            err=True,
        )


def opened(study: Path, cell: str) -> "tuple[CellSAE, TextReader]":
    """The SAE of `cell` and a reader of texts at its hook, with the study's kernels on one core.

    StudyError, before any model is loaded, where there is no such SAE, the study has not run that
    far, or its SAEs read no tokens.
    """
    loaded = load(study / "params.yaml")
    if not {"numpy", "torch"} & set(sys.modules):
        choose(loaded.compute.bits)
    from sae_repro.latents.of_cell import CellSAE
    from sae_repro.latents.reading import TextReader
    from sae_repro.numerics.determinism import prepare

    named = CellSAE.of(study, loaded.cells, cell)
    reader = TextReader.of(study, named.hook)
    reader.check_tokens_are_read()
    prepare(device="cpu", threads=1)
    return named, reader
