"""An explanation for the terminal: bars, a heat map, and what tokens share, in words."""

import sys
from typing import TYPE_CHECKING

from sae_repro.errors import shown
from sae_repro.latents.explanation import Explanation, Profile

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDE = 120  # columns where the output is no terminal
BAR = 24
TOKEN = 20
LINES = 200  # of the heat map
DARKEST, BRIGHTEST = (24, 48, 56), (42, 165, 160)


def show(explanation: Explanation) -> None:
    """Print `explanation` to standard output, coloured where that is a terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    console = Console(width=width, highlight=False, emoji=False, markup=False)
    for part in (_heading, _bars, _heat, _shared):
        part(console, explanation)


def _heading(console: "Console", it: Explanation) -> None:
    fvu = "" if it.fvu is None else f", FVU {it.fvu:.3g} on this text"
    tokens = "token" if len(it.tokens) == 1 else "tokens"
    console.print(
        f"{it.cell}: {it.hook}, {it.d_sae} latents; {len(it.tokens)} {tokens}, "
        f"{it.l0:.1f} latents active per token{fvu}",
        soft_wrap=True,
    )
    console.print(f"mean over the text: {it.in_words}\n", soft_wrap=True)


def _bars(console: "Console", it: Explanation) -> None:
    from rich.table import Table

    table = Table(title="latents with the largest means", title_justify="left", box=None)
    for column in ("latent", "mean", "largest", "tokens", "held out"):
        table.add_column(column, justify="right")
    table.add_column("")
    table.add_column("name", overflow="fold")
    for profile in it.profiles:
        density = "–" if profile.density is None else f"{profile.density:.1%}"
        bar = "█" * max(1, round(BAR * profile.mean / it.profiles[0].mean))
        table.add_row(
            str(profile.latent), f"{profile.mean:.2f}", f"{profile.largest:.2f}",
            str(len(profile.places)), density, _text(bar, "cyan"), _text(profile.name),
        )  # fmt: skip
    console.print(table)
    console.print("held out: fraction of the study's held-out tokens on which it fires\n")


def _heat(console: "Console", it: Explanation) -> None:
    from rich.table import Table

    table = Table(title="tokens × latents", title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("token", no_wrap=True)
    for profile in it.profiles:
        table.add_column(str(profile.latent), justify="right", no_wrap=True)
    table.add_column("strongest, of all latents", overflow="fold")
    for t, token in enumerate(it.tokens[:LINES]):
        cells = [_cell(profile, t, it.largest) for profile in it.profiles]
        words = ", ".join(map(str, it.strongest[t])) if it.kept[t] else "left out, as in extraction"
        table.add_row(_text(_token(token)), *cells, _text(words))
    console.print(table)
    if len(it.tokens) > LINES:
        console.print(f"… and {len(it.tokens) - LINES} tokens more; --html FILE has them all")


def _shared(console: "Console", it: Explanation) -> None:
    console.print("\nlatents that are active on several tokens")
    for profile in it.shared:
        places = profile.places[:LINES]
        words = ", ".join(f"{_token(it.tokens[t])} {profile.z_t[t]:.2f}" for t in places)
        console.print(_text(f"  {profile.latent} {profile.name}: {words}"))
    if not it.shared:
        console.print("  none of those above")


def _cell(profile: Profile, t: int, largest: float) -> "Text":
    value = float(profile.z_t[t])
    if value <= 0:
        return _text("·", "dim")
    share = value / largest
    shade = (str(round(a + share * (b - a))) for a, b in zip(DARKEST, BRIGHTEST, strict=True))
    ink = "black" if share > 0.6 else "white"
    return _text(f"{value:.2f}", f"{ink} on rgb({','.join(shade)})")


def _token(token: str) -> str:
    return shown(token.replace(" ", "␣"), TOKEN) or '""'


def _text(text: str, style: str = "") -> "Text":
    """`text` as it stands: names and tokens may look like rich's markup."""
    from rich.text import Text

    return Text(text, style=style)
