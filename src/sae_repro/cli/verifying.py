"""The command `verify`: results compared with the recorded ones, or with another checkout's."""

from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.verify import Verdict, record_machine, verify_other, verify_recorded


def verify(
    study: Path, other: Path | None, rtol: float, *, verbose: bool, record: bool
) -> tuple[list[str], int]:
    """The lines to print, and the exit code: 0 within `rtol`, 1 beyond it."""
    if other is not None and record:
        raise StudyError(
            "--record: is for a comparison with the recorded study; leave out OTHER, or --record"
        )
    if other is None:
        verdict = verify_recorded(study)
        lines = [verdict.summary(rtol)]
    else:
        _refuse_own_study(study, other)
        verdict = verify_other(study, other)
        lines = [verdict.summary(rtol, str(other))]
    if verbose:
        lines = [*_details(verdict), *lines]
    if record:
        lines.append(record_machine(study, verdict))
    return lines, 0 if verdict.within(rtol) else 1


def _refuse_own_study(study: Path, other: Path) -> None:
    """StudyError where `other` is a further study of this checkout, which has other numbers."""
    within = study.resolve() in other.resolve().parents
    if within and (other / "params.yaml").is_file() and not (other / ".dvc").exists():
        raise StudyError(
            f"{other}: another study of this checkout; to compare it with what was recorded of it: "
            f"sae-repro verify --study {other}"
        )


def _details(verdict: Verdict) -> list[str]:
    """A line for each difference: its first place, and its largest if that is another."""
    return [
        f"{d.file}: {d.where}"
        + (f"; largest at {d.largest}" if d.largest and d.largest != d.where else "")
        for d in verdict.differences
    ]
