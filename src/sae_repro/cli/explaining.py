"""The command `explain`: which latents of an SAE are active on a text."""

from pathlib import Path
from typing import Annotated

import typer

from sae_repro.cli.trained import CellName, StudyOption, note_unknown, opened
from sae_repro.errors import StudyError


def explain(
    text: Annotated[str | None, typer.Argument(help="The text, in quotes.")] = None,
    *,
    cell: CellName,
    top: Annotated[int, typer.Option(min=1, max=64, help="Latents to show.")] = 8,
    file: Annotated[
        Path | None, typer.Option(help="Read the text from this UTF-8 file instead.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a web page.")] = None,
    study: StudyOption = Path(),
) -> None:
    """Show which latents of an SAE are active on a text.

    The text is read as the study reads its documents: with its tokenizer, its rows and its model.
    No latents are shown for tokens that extraction leaves out. A latent is named by the judge's
    label, else by the concept that fits it best (with ? where it is polysemantic), else by the
    token of its largest activation. Those with the largest means over the text are shown.

    Examples:

    sae-repro explain "Lily ran to the park ." --cell topk-x8-k16

    sae-repro explain --file story.txt --cell topk-x8-k16/seed-1 --top 12 --html story.html

    sae-repro explain "Shares fell again" --cell topk-x8-k32 --study studies/news
    """
    given = _text(text, file)
    named, reader = opened(study, cell)
    from sae_repro.cli.explanation_text import show
    from sae_repro.latents.explanation import explain as explanation_of
    from sae_repro.progress import bar

    with bar("reading", unit="tokens") as progress:
        explanation = explanation_of(named, reader, given, top=top, progress=progress.update)
    note_unknown(reader, given)
    show(explanation)
    if html is not None:
        from sae_repro.files import write_text
        from sae_repro.latents.explanation_page import page_of

        write_text(html, page_of(explanation))
        typer.echo(f"\nwrote {html}")


def _text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise StudyError("give either a text in quotes or --file FILE")
    if text is not None:
        return text
    assert file is not None
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"--file {file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise StudyError(f"--file {file}: can't be read: {reason}") from None
