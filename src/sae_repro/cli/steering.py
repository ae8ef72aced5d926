"""The command `steer`: a model's text with latents of an SAE clamped, added to, scaled, zeroed."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sae_repro.cli.output import echo
from sae_repro.cli.trained import CellName, StudyOption, note_unknown, opened
from sae_repro.errors import StudyError, one_line, shown

if TYPE_CHECKING:
    from sae_repro.latents.of_cell import CellSAE
    from sae_repro.latents.steered_text import SteeredText
    from sae_repro.steering import Intervention

Mode = Literal["clamp", "add", "scale", "zero"]
DOING = {"clamp": "clamped to {}", "add": "raised by {}", "scale": "times {}", "zero": "set to 0"}


def steer(
    prompt: Annotated[str, typer.Argument(help="The text to continue, in quotes.")],
    cell: CellName,
    latent: Annotated[list[str], typer.Option(help="N=VALUE, or N with --mode zero; repeatable.")],
    mode: Annotated[Mode, typer.Option(help="What VALUE does to a latent's activation.")] = "clamp",
    tokens: Annotated[int, typer.Option(min=1, max=1000, help="Tokens to write.")] = 40,
    temperature: Annotated[
        float, typer.Option(min=0, max=10, help="0: the likeliest tokens; else drawn.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    study: StudyOption = Path(),
) -> None:
    """Continue a prompt while latents of an SAE are steered.

    At every position but the first of a row, the activation z of each latent becomes VALUE (clamp),
    z + VALUE (add), z · VALUE (scale) or 0 (zero). The model's activation moves by the difference
    times the latent's atom, so that what the SAE does not explain stays as it is.

    Prints the steered and the unsteered text, KL(unsteered ‖ steered) on the latter, and the output
    score of each latent: by how much the rank-weighted probability of the tokens that its atom
    promotes rises. `sae-repro explain` shows latents with their usual values.

    Examples:

    sae-repro steer "Lily went to the" --cell topk-x8-k16 --latent 423=8 --tokens 20

    sae-repro steer "Lily went to the" --cell topk-x8-k16 --latent 423 --latent 64 --mode zero

    sae-repro steer "once" --cell topk-x8-k16 --latent 423=2 --mode scale --temperature 0.7 --seed 3
    """
    given = [_parsed(each, mode) for each in latent]
    named, reader = opened(study, cell)
    from sae_repro.latents.steered_text import Sampling, steered_text
    from sae_repro.progress import bar
    from sae_repro.steering import Intervention

    interventions = [Intervention(number, mode, value) for number, value in given]
    sampling = Sampling(tokens, temperature, seed)
    with bar("writing", unit="tokens", total=2 * tokens) as progress:
        result = steered_text(named, reader, prompt, interventions, sampling, progress.update)
    note_unknown(reader, prompt)
    drawn = f"temperature {temperature:g}, seed {seed}"
    echo(f"{named.name}, {named.hook}; {drawn if temperature else 'the likeliest tokens'}")
    for line in _lines(named, interventions, result):
        echo(line)


def _lines(
    cell: "CellSAE", interventions: "Sequence[Intervention]", result: "SteeredText"
) -> Iterator[str]:
    names = cell.names(each.latent for each in interventions)
    for each, effect in zip(interventions, result.effects, strict=True):
        facts = cell.measured(each.latent)
        usual = "" if facts is None else (
            f"; on held-out tokens at most {facts['max_activation']:.3g}, active on "
            f"{facts['density']:.2%}"
        )  # fmt: skip
        done = DOING[each.mode].format(f"{each.value:g}")
        yield f"{each.latent} {names[each.latent]}: {done}{usual}"
        if effect.score is not None:
            promoted = " ".join(map(shown, map(str.strip, effect.promoted)))
            yield f"  output score {effect.score:+.3g}; its atom promotes: {promoted}"
    yield f"prompt:    {one_line(result.prompt)}"
    yield f"unsteered: {one_line(result.unsteered)}"
    yield f"steered:   {one_line(result.steered)}"
    yield (
        f"KL(unsteered ‖ steered): {result.kl:.3g} nats, mean over {result.positions} positions of "
        "the unsteered text"
    )


def _parsed(latent: str, mode: Mode) -> tuple[int, float]:
    """(latent, value) of `N=VALUE`."""
    number, equals, value = latent.partition("=")
    form = "N, without a value" if mode == "zero" else "N=VALUE, such as 12=8.5"
    try:
        found = int(number), float(value) if equals else 0.0
    except ValueError:
        raise StudyError(f"--latent {shown(latent)}: with --mode {mode} give {form}") from None
    if bool(equals) == (mode == "zero") or not math.isfinite(found[1]):
        raise StudyError(f"--latent {shown(latent)}: with --mode {mode} give {form}")
    return found
