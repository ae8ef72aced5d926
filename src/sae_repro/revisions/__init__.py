"""Differences of a study's recorded results between two revisions of git, and their reasons."""

from sae_repro.revisions.changes import Changes, changes
from sae_repro.revisions.reasons import Reasons, reasons
from sae_repro.revisions.snapshot import Snapshot, snapshot
from sae_repro.revisions.wording import report

__all__ = ["Changes", "Reasons", "Snapshot", "changes", "reasons", "report", "snapshot"]
