"""reports/machines.csv: on which machines the study was made, with which result.

Facts of machines stand there alone: what stages write is the same on every machine.
"""

import csv
import io
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.files import write_text
from sae_repro.numerics.processor import cpuinfo, processor_name
from sae_repro.params import read_yaml
from sae_repro.verify.files import MACHINES

DECIDING = ("avx2", "fma", "avx512f", "amx")
"""Instruction sets by which libraries choose kernels."""


@dataclass(frozen=True)
class Machine:
    """A kind of machine, and the versions on it."""

    processor: str
    vendor: str
    family: str
    model: str
    instruction_sets: str
    """Those of `DECIDING` that it has, separated by spaces."""
    system: str
    python: str
    torch: str
    numpy: str
    scipy: str
    bits: str
    """compute.bits of the study."""

    @property
    def processor_id(self) -> tuple[str, ...]:
        """What tells kinds of processors apart, with the kernels in use."""
        return self.vendor, self.family, self.model, self.instruction_sets, self.bits


@dataclass(frozen=True)
class Line(Machine):
    """A line of machines.csv."""

    recorded: str
    """Checksum of the recorded study that the machine's was compared with."""
    checksum: str
    """Checksum of the study as the machine made it."""
    result: str


FIELDS = tuple(field.name for field in fields(Line))
COLUMNS = (*FIELDS, "study")
"""Those of machines.csv: last, whether the line is of the study that is recorded now."""
CURRENT, EARLIER = "current", "earlier"


def bits_of(study: Path) -> str:
    """compute.bits of a study's params.yaml."""
    compute = read_yaml(study / "params.yaml").get("compute") or {}
    return str(compute.get("bits", "portable")) if isinstance(compute, dict) else "portable"


def this_machine(bits: str) -> Machine:
    """The machine that this process runs on; what its system does not tell is empty."""
    cpu = cpuinfo()
    flags = set(cpu.get("flags", "").split())
    has = [name for name in DECIDING if any(flag.partition("_")[0] == name for flag in flags)]
    return Machine(
        processor=processor_name(),
        vendor=cpu.get("vendor_id", ""),
        family=cpu.get("cpu family", ""),
        model=cpu.get("model", ""),
        instruction_sets=" ".join(has),
        system=f"{_system()} {platform.machine()}",
        python=platform.python_version(),
        torch=version("torch"),
        numpy=version("numpy"),
        scipy=version("scipy"),
        bits=bits,
    )


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def lines(study: Path) -> list[Line]:
    """The lines of a study's machines.csv; StudyError where it is damaged."""
    path = study / MACHINES
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(_parsed(csv.reader(file)))
    except (csv.Error, TypeError, UnicodeDecodeError, ValueError) as error:
        raise StudyError(
            f"{path}: not as `sae-repro verify --record` writes it ({error}); "
            f"`git checkout {path}` brings back the committed one"
        ) from None


def _parsed(rows: Iterator[list[str]]) -> Iterator[Line]:
    header = next(rows, [])
    if tuple(header) not in (COLUMNS, FIELDS):  # files of before have no column `study`
        raise ValueError(f"line 1: columns {', '.join(header) or 'missing'}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f"line {number}: {len(row)} fields for {len(header)} columns")
        yield Line(*row[: len(FIELDS)])


def confirmed(study: Path, recorded: str) -> set[tuple[str, ...]]:
    """`processor_id` of the machines on which the study of checksum `recorded` came out again."""
    return {line.processor_id for line in lines(study) if line.checksum == recorded}


def record(study: Path, recorded: str, made: str, result: str) -> str:
    """Add this machine's line, or renew it; what was done, in words.

    Lines of this kind of processor that tell of an earlier recorded study go, whatever their
    versions; those of other processors stay, marked as earlier, until these confirm the new one.
    """
    machine = this_machine(bits_of(study))
    line = Line(**asdict(machine), recorded=recorded, checksum=made, result=result)
    before = lines(study)
    kept = [each for each in before if not _replaced(each, line)]
    renewed = len(kept) < len(before)
    write_text(study / MACHINES, _text([*kept, line], recorded))
    return f"{study / MACHINES}: {machine.processor or 'this machine'} " + (
        "renewed" if renewed else "added"
    )


def _replaced(old: Line, new: Line) -> bool:
    """Whether a line says nothing more once `new` is there."""
    if old.recorded != new.recorded:
        return old.processor_id == new.processor_id
    return all(getattr(old, fact.name) == getattr(new, fact.name) for fact in fields(Machine))


def _text(kept: list[Line], recorded: str) -> str:
    """The lines in a fixed order, so that two machines' additions merge."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in sorted(kept, key=lambda line: tuple(asdict(line).values())):
        of = CURRENT if line.recorded == recorded else EARLIER
        writer.writerow([*asdict(line).values(), of])
    return file.getvalue()
