"""The ledger of claims: claims.yaml against the tables, a row and a verdict each."""

import csv
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from sae_repro.compare.claim_data import Tables, UndecidedError, read_tables
from sae_repro.compare.claim_statistics import Measured, measure
from sae_repro.compare.tables import number, with_interval, write_table
from sae_repro.errors import StudyError
from sae_repro.files import remedy, write_text
from sae_repro.params import Compare
from sae_repro.params.claims import (
    Along,
    Claim,
    Read,
    Share,
    Untested,
    Versus,
    matching,
    read_claims,
)
from sae_repro.pins import pinned_claims

Verdict = Literal["reproduced", "refuted", "undecided", "not tested here"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "refuted", "undecided", "not tested here")


@dataclass(frozen=True)
class Entry:
    """A claim with its number and verdict."""

    name: str
    claim: Claim
    measured: Measured | None
    reason: str = ""
    """Why it has no number."""

    @property
    def verdict(self) -> Verdict:
        """By the whole interval: on the claimed side, on the other, or on both."""
        if isinstance(self.claim.test, Untested):
            return "not tested here"
        if self.measured is None or self.claim.expected is None:
            return "undecided"
        low, high = self.measured.low, self.measured.high
        start, end = self.claim.expected.ends
        if math.isnan(low) or math.isnan(high):
            return "undecided"
        if start < low and high < end:
            return "reproduced"
        return "refuted" if high < start or end < low else "undecided"

    @property
    def command(self) -> str:
        """What computes this row again."""
        return f"sae-repro claims {self.name}"


def load_claims(path: Path) -> dict[str, Claim]:
    """The claims in the file at `path`, by id; StudyError with one line per fault."""
    return read_claims(path).claims


def pinned(settings: Compare, folder: Path) -> dict[str, Claim]:
    """The study's claims, found unchanged; none where it has none. `folder` holds params.yaml."""
    if settings.claims is None:
        return {}
    file = pinned_claims(settings.claims, folder)
    file.check()
    return load_claims(file.path)


def entry_of(name: str, claim: Claim, tables: Tables) -> Entry:
    """The claim as the tables decide it."""
    try:
        return Entry(name, claim, measure(claim.test, tables))
    except UndecidedError as why:
        return Entry(name, claim, None, str(why))


def entries(claims: Mapping[str, Claim], tables: Tables) -> list[Entry]:
    """All claims, in the order of claims.yaml."""
    return [entry_of(name, claim, tables) for name, claim in claims.items()]


def table_of(of: Iterable[Entry]) -> pd.DataFrame:
    """claims.csv: a row per claim."""
    return pd.DataFrame([row_of(entry) for entry in of])


def row_of(entry: Entry) -> dict[str, str]:
    """The claim's row of claims.csv, as text."""
    claim, measured = entry.claim, entry.measured
    numbers = {
        key: "" if measured is None else repr(getattr(measured, key))
        for key in ("value", "low", "high", "n")
    }
    return {
        "claim": entry.name,
        "verdict": entry.verdict,
        **numbers,
        "over": "" if measured is None else measured.over,
        "expected": str(claim.expected or ""),
        "statistic": described(claim),
        "reason": entry.reason,
        "quote": " ".join(claim.quote.split()),
        "paraphrase": "yes" if claim.paraphrase else "no",
        "source": claim.source,
        "command": entry.command,
    }


def recorded_rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a claims.csv by claim; StudyError where there is none."""
    if not path.is_file():
        raise StudyError(f"{path}: missing; {remedy(path)}")
    with path.open(encoding="utf-8", newline="") as file:
        return {row["claim"]: row for row in csv.DictReader(file) if "claim" in row}


def described(claim: Claim) -> str:
    """The statistic in words: what is compared, of which cells."""
    test = claim.test
    if not isinstance(test, Read):
        return test.kind if isinstance(test, Untested) else f"recorded in {test.origin}"
    parts = [f"{test.kind.replace('_', ' ')} of {test.metric}"]
    if isinstance(test, Share):
        parts.append(f"≥ {test.bound:g}")
    if isinstance(test, Along):
        parts.append(f"along {test.axis}")
    parts.append(f"in {', '.join(test.cells)}")
    if isinstance(test, Versus):
        parts.append(f"against {', '.join(test.than)}")
    return " ".join(parts)


def write_claims(folder: Path, claims: Mapping[str, Claim]) -> None:
    """claims.csv and claims.md of the tables that are in `folder` already."""
    of = entries(claims, read_tables(folder))
    counts = ", ".join(
        f"{n} {verdict}" for verdict in VERDICTS if (n := [e.verdict for e in of].count(verdict))
    )
    caption = (
        f"# Claims\n\n{len(of)} claims of claims.yaml: {counts}. Each has a bound that "
        "params.yaml pins; notes say which were set with numbers in sight. Reproduced: the whole "
        "95 % interval lies where the claim "
        "says; refuted: none of it; undecided: neither, or there is no interval (one seed decides "
        "nothing). Slopes are per doubling of their axis. A verdict is on this study's model and "
        "text, and says nothing of the source's own. claims.csv has the statistic and the reason "
        "in full; `sae-repro claims ID` computes a row again and says what it read."
    )
    printed = pd.DataFrame(
        {
            "claim": [e.name for e in of],
            "what is claimed": [_quoted(e.claim) for e in of],
            "verdict": [f"**{e.verdict}**" for e in of],
            "number [95 %]": [_number(e) for e in of],
            "claimed": [str(e.claim.expected or "—") for e in of],
            "n": [_n(e) for e in of],
            "command": [f"`{e.command}`" for e in of],
        }
    )
    notes = "\n".join(f"- {e.name}: {text}" for e in of if (text := _note(e)))
    write_table(folder, "claims", table_of(of), caption, printed)
    path = folder / "claims.md"
    write_text(path, f"{path.read_text(encoding='utf-8')}\n## Notes\n\n{notes}\n")


def _quoted(claim: Claim) -> str:
    text = " ".join(claim.quote.split()).replace("|", r"\|")
    return f"{text if claim.paraphrase else f'“{text}”'} ({claim.source})"


def _number(entry: Entry) -> str:
    if entry.measured is None:
        return "—"
    return with_interval(entry.measured.value, (entry.measured.low, entry.measured.high))


def _n(entry: Entry) -> str:
    return "—" if entry.measured is None else f"{entry.measured.n} {entry.measured.over}"


def _note(entry: Entry) -> str:
    parts = [] if isinstance(entry.claim.test, Untested) else [described(entry.claim)]
    return "; ".join([*parts, *_remarks(entry)])


def _remarks(entry: Entry) -> Iterator[str]:
    """Why it has no number, why cells repeat one another, how far the test is the claim."""
    test = entry.claim.test
    if entry.reason:
        yield entry.reason
    if isinstance(test, Read) and test.because:
        yield f"over cells because {test.because}"
    if entry.claim.note:
        yield entry.claim.note


def lines_of(entry: Entry, tables: Tables) -> Iterator[str]:
    """One claim at length: the claim, what was read, the number, the verdict."""
    claim, test = entry.claim, entry.claim.test
    yield f"{entry.name}: {entry.verdict}"
    yield from textwrap.wrap(_quoted(claim), 96, initial_indent="  ", subsequent_indent="  ")
    yield f"  test: {described(claim)}"
    if isinstance(test, Read):
        than = test.than if isinstance(test, Versus) else ()
        for label, patterns in (("cells", test.cells), ("than", than)):
            for cell in matching(patterns, tables.cells):
                yield f"  {label}: {cell}: {_values(tables, cell, test.metric)}"
    if claim.expected is not None:
        yield f"  claimed: {claim.expected}"
    if entry.measured is not None:
        yield f"  measured: {_number(entry)}, over {_n(entry)}"
    for remark in _remarks(entry):
        yield f"  {remark}"


def _values(tables: Tables, cell: str, metric: str) -> str:
    if tables.of_seeds([cell], metric):
        return number(tables.wholes[cell][metric])
    return ", ".join(number(row.get(metric)) for row in tables.saes[cell])
