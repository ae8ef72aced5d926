"""Progress for people: a bar on a terminal, lines elsewhere. No result depends on it."""

import sys
from collections.abc import Mapping
from typing import Any

from sae_repro.errors import printable

EVERY = 15.0  # seconds between two lines where there is no terminal


def say(line: str) -> None:
    """Print `line` now, above a bar where there is one."""
    from tqdm import tqdm

    tqdm.write(printable(line), file=sys.stdout)
    sys.stdout.flush()


def bar(desc: str, *, unit: str, total: int | None = None, initial: int = 0) -> Any:
    """A tqdm bar on standard error, in a `with` block: `update(n)` as work is done.

    Where that is no terminal, a line every `EVERY` seconds; work that is done before prints none.
    """
    from tqdm import tqdm

    settings = {"desc": desc, "unit": unit, "total": total, "initial": initial}
    settings["unit_scale"] = total is None or total >= 10_000  # which writes 7 as 7.00
    if sys.stderr.isatty():
        return tqdm(**settings)
    units = unit if unit.endswith("s") else f"{unit}s"
    of_total = "" if total is None else " of {total:,}"
    left = "" if total is None else ", {remaining} left"
    return tqdm(
        **settings,
        file=_Lines(),
        mininterval=EVERY,
        delay=EVERY,
        miniters=1,
        bar_format=f"{{desc}}: {{n:,}}{of_total} {units}, {{rate_fmt}}{left}{{postfix}}",
    )


class _Lines:
    """A file to which tqdm writes: what it redraws in place becomes a line each."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Each line is flushed as it is printed."""


def measured(metrics: Mapping[str, float | None], *more: str) -> str:
    """`L0 16, FVU 0.0564, dead 0.012`: in three digits, what has no value left out.

    With the metrics `more` by their names in metrics.json.
    """
    shown = {"l0": "L0", "fvu": "FVU", "dead_fraction_never": "dead"}
    shown |= {name: name for name in more if name not in shown}
    return ", ".join(
        f"{label} {value:.3g}"
        for name, label in shown.items()
        if (value := metrics.get(name)) is not None
    )


def say_kept(stage: str, made: int, total: int) -> None:
    """Say how many SAEs of a grid a stage makes now, and how many it keeps."""
    parts = [f"{made} to make"] if made else []
    parts += [f"{total - made} unchanged"] if total > made else []
    say(f"{stage}: {', '.join(parts)} of {total} SAEs")
