"""Tables in reports/benchmarks: rows with machine and date, kept until they are measured anew."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sae_repro.files import write_text
from sae_repro.verify.machines import this_machine

FOLDER = Path(__file__).resolve().parents[1] / "reports/benchmarks"
MACHINE = ("processor", "instruction_sets", "system", "python", "torch", "numpy", "bits")


def machine_of(bits: str) -> dict[str, str]:
    """The facts of this machine that its rows carry, and the day."""
    machine = this_machine(bits)
    facts = {name: str(getattr(machine, name)) for name in MACHINE}
    facts["processor"] += f" (family {machine.family}, model {machine.model})"
    return {**facts, "date": datetime.date.today().isoformat()}


def read(name: str) -> pd.DataFrame:
    """The table `name`.csv as it is; empty where there is none."""
    path = FOLDER / f"{name}.csv"
    return pd.read_csv(path, keep_default_na=False) if path.is_file() else pd.DataFrame()


def renew(name: str, rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> pd.DataFrame:
    """Write `rows` into `name`.csv, in place of those that agree with one of them in `key`."""
    new, old = pd.DataFrame(rows), read(name)
    if len(old):
        measured = set(map(tuple, new[list(key)].astype(str).to_numpy()))
        kept = [tuple(row) not in measured for row in old[list(key)].astype(str).to_numpy()]
        new = pd.concat([old[kept], new], ignore_index=True)
    write_text(FOLDER / f"{name}.csv", new.to_csv(index=False, lineterminator="\n"))
    return new


def write_page(name: str, title: str, body: str, rows: pd.DataFrame) -> None:
    """`name`.md: a title, the machines of the rows, the text."""
    facts = rows[[*MACHINE, "date"]].drop_duplicates()
    machines = "\n".join(
        f"- {row['processor']}, {row['instruction_sets']}; {row['system']}, Python "
        f"{row['python']}, torch {row['torch']}, numpy {row['numpy']}; {row['bits']} kernels; "
        f"{row['date']}"
        for row in facts.to_dict("records")
    )
    write_text(FOLDER / f"{name}.md", f"# {title}\n\n{body}\n\nMeasured on\n\n{machines}\n")


def ratio(row: Mapping[str, Any]) -> str:
    """`1.43 [1.40, 1.47]`: median and quartiles."""
    return "{ratio:.2f} [{ratio_q1:.2f}, {ratio_q3:.2f}]".format(**row)


def wide(rows: pd.DataFrame, *, down: Sequence[str], across: str) -> str:
    """A Markdown table of the rows' ratios."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows.to_dict("records"):
        cells.setdefault(tuple(str(row[name]) for name in down), {})[str(row[across])] = ratio(row)
    columns = list(dict.fromkeys(str(name) for name in rows[across]))
    head = [*down, *columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for names, values in cells.items():
        lines.append("| " + " | ".join([*names, *(values.get(c, "–") for c in columns)]) + " |")
    return "\n".join(lines)
